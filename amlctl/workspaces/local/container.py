"""The working container of a run: a fresh folder with the user's code; the runtime in it adds the rest.

The runtime of the code snapshot is unpacked once per project, to `<state>/runtimes/<content id>/`. Python keeps the
compiled modules there: importing them takes 0.12 s, from the archive 0.3 s.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from amlctl.core.content_id import content_id
from amlctl.core.job import RUNTIME_ARCHIVE
from amlctl.core.message import Command, Message
from amlctl.core.store_keys import code_index_key, code_prefix
from amlctl.errors import IntegrityError, NotFound
from amlctl.localfs.folders import make_private_folder, remove_tree
from amlctl.runs.code import PIPELINE
from amlctl.runs.tree import TreeFile, read_index, restore_tree
from amlctl.stores.contract import Store

_PLAIN_RUNTIME = "amlctl/"
"""Of a code snapshot that an earlier amlctl has made."""


def make_container(store: Store, code: str, container: Path, runtimes: Path) -> Path:
    """Returns the folder of the runtime, for PYTHONPATH.

    Raises NotFound (no such code snapshot), IntegrityError, ServiceUnavailable, OSError.
    """
    remove_tree(container, ignore_errors=True)
    make_private_folder(container)
    prefix, index_key = code_prefix(code), code_index_key(code)
    index = read_index(store, index_key)
    if index is None:
        raise NotFound(f"the code snapshot {code} is not in the store {store.url}", hint="submit again")
    restore_tree(store, prefix, index_key, container, include=lambda path: path.startswith(f"{PIPELINE}/"))
    (container / PIPELINE).mkdir(exist_ok=True)
    archive = next((file for file in index if file.path == RUNTIME_ARCHIVE), None)
    if archive is not None:
        return _unpacked(store, code, archive, runtimes)
    folder = container / ".amlctl-runtime"
    restore_tree(store, prefix, index_key, folder, include=lambda path: path.startswith(_PLAIN_RUNTIME))
    return folder


def _unpacked(store: Store, code: str, archive: TreeFile, runtimes: Path) -> Path:
    from zipfile import ZipFile  # here, since it is needed once

    folder = runtimes / archive.content_id
    if folder.is_dir():
        return folder
    key = code_prefix(code) + archive.path
    data = store.get(key)
    if content_id(data) != archive.content_id:
        raise IntegrityError(
            f"{key} in the store {store.url} is damaged",
            hint=Message(Command("submit", "SCRIPT"), ", with the same code"),
        )
    make_private_folder(runtimes)
    with tempfile.TemporaryDirectory(prefix="new-", dir=runtimes) as scratch:
        unpacked = Path(scratch, "runtime")
        ZipFile(io.BytesIO(data)).extractall(unpacked)
        try:
            unpacked.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another run of this moment has unpacked it
                raise
    return folder
