"""What a run finds on this machine: its working container with the user's code, its runtime, and the store as a folder.

The container is a fresh folder with `pipeline/`; the runtime adds the rest. The runtime of the code snapshot is
unpacked once per project, to `<state>/runtimes/<content id>/`. Python keeps the compiled modules there: importing them
takes 0.12 s, from the archive 0.3 s.

A folder store is itself what a node sees. A blob store gets a folder, `<state>/node-stores/<hash of the URL>/`, of the
same format, which is filled with what a run reads and returns what it has produced. It stays as a cache. Of `runs/` it
holds only what is exchanged between the supervisor and the runtime of a run that is not final.
"""

from __future__ import annotations

import io
import time
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

from amlctl.core.content_id import content_id
from amlctl.core.events import EventSink, null_sink
from amlctl.core.job import PIPELINE, RUNTIME_ARCHIVE
from amlctl.core.message import Command, Message
from amlctl.core.store_keys import code_prefix, code_tree, run_prefix
from amlctl.errors import IntegrityError, NotFound
from amlctl.localfs.atomic import scratch_folder, set_mtime, sync_to_disk
from amlctl.localfs.folders import close_to_others, make_private_folder, remove_tree
from amlctl.runs.tree import Place, TreeFile, read_tree_index, restore_tree
from amlctl.stores.contract import Store
from amlctl.stores.directory import DirectoryStore
from amlctl.stores.presence import StoreOfRun
from amlctl.workspaces.local.starting import TOKEN_VARIABLE

_UNUSED_S = 30 * 86400.0
"""A runtime of another version that was not used for so long is removed; a run can unpack it again."""
_PLAIN_RUNTIME = "amlctl/"
"""Of a code snapshot that an earlier amlctl has made."""


def make_container(store: Store, code: str, container: Path, runtimes: Path) -> Path:
    """Returns the folder of the runtime, for PYTHONPATH.

    Raises NotFound (no such code snapshot), IntegrityError, ServiceUnavailable, OSError.
    """
    remove_tree(container, ignore_errors=True)
    make_private_folder(container)
    tree = code_tree(code)
    index = read_tree_index(store, tree.index_key)
    if index is None:
        raise NotFound(f"the code snapshot {code} is not in the store {store.url}", hint="submit again")
    restore_tree(store, tree, Place(container), index=index, include=lambda path: path.startswith(f"{PIPELINE}/"))
    (container / PIPELINE).mkdir(exist_ok=True)
    archive = next((file for file in index.files if file.path == RUNTIME_ARCHIVE), None)
    if archive is not None:
        return _unpacked(store, code, archive, runtimes)
    folder = container / ".amlctl-runtime"
    restore_tree(store, tree, Place(folder), index=index, include=lambda path: path.startswith(_PLAIN_RUNTIME))
    return folder


def _unpacked(store: Store, code: str, archive: TreeFile, runtimes: Path) -> Path:
    from zipfile import ZipFile  # here, since it is needed once

    folder = runtimes / archive.content_id
    if folder.is_dir():
        set_mtime(folder, time.time_ns())
        return folder
    key = code_prefix(code) + archive.path
    data = store.get(key)
    if content_id(data) != archive.content_id:
        raise IntegrityError(
            f"{key} in the store {store.url} is damaged",
            hint=Message(Command("submit", "SCRIPT"), ", with the same code"),
        )
    make_private_folder(runtimes)
    with scratch_folder(runtimes) as scratch:
        unpacked = scratch / "runtime"
        ZipFile(io.BytesIO(data)).extractall(unpacked)
        for module in list(unpacked.rglob("*.py")):
            (module.parent / "__pycache__").mkdir(exist_ok=True)  # Python itself would use the umask
            with module.open("rb") as file:  # a power cut must not leave empty modules under the final name
                sync_to_disk(file.fileno())
        close_to_others(unpacked)
        try:
            unpacked.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another run of this moment has unpacked it
                raise
    for other in runtimes.iterdir():
        with suppress(FileNotFoundError):  # another run of this moment has removed it
            if other.stat().st_mtime < time.time() - _UNUSED_S:
                remove_tree(other, ignore_errors=True)
    return folder


def node_store(store: Store, state_dir: Path) -> DirectoryStore:
    """The folder that stands for `store` on this machine."""
    if store.folder is not None:
        return DirectoryStore(store.folder, may_be_new=False)
    return DirectoryStore(state_dir / "node-stores" / content_id(store.url.encode())[:16])


def open_run_store(url: str, run: str, variables: MutableMapping[str, str], sink: EventSink = null_sink) -> Store:
    """The store of `run`, by its `url`, for its supervisor; a folder that is gone is not made again. Its token is
    removed from the variables, which the script will get. `sink` gets an event for each retried request.

    Raises SettingsError.
    """
    token = variables.pop(TOKEN_VARIABLE, "")
    if url.startswith("/"):
        return StoreOfRun(DirectoryStore(Path(url), may_be_new=False), run)
    from amlctl.stores.azure_blob.store import AzureBlobStore  # here, since a list of runs does not need it

    return AzureBlobStore(f"{url}?{token}" if token else url, variables, tell=sink)


def forget_run(node: DirectoryStore, run: str) -> None:
    """Delete what supervisor and runtime have exchanged; the store has the results."""
    for entry in list(node.list(run_prefix(run))):
        node.delete(entry.key)
