"""What a run finds in its container before the script starts, and what it leaves in the store."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from amlctl.core.events import Event, StageProgress
from amlctl.core.hidden_values import hidden_in
from amlctl.core.message import Command, below_data_blobs, size
from amlctl.core.run import RunRecord, config_bytes
from amlctl.core.store_keys import attempt_key, outputs_tree
from amlctl.errors import AmlctlError, NotFound
from amlctl.localfs.folders import remove_tree
from amlctl.localfs.locks import locked
from amlctl.runs.tree import Place, read_tree_index, restore_tree
from amlctl.runs.tree_saver import TreeSaver
from amlctl.runtime.ranks import NodeRank
from amlctl.runtime.script import NodeFolders
from amlctl.stores.contract import Store


def once(folder: Path, name: str, content: str, action: Callable[[], object]) -> None:
    """Run it unless a process on this node has run it for the same `content`; other callers wait meanwhile.

    A process that is killed leaves no marker, so the next one starts again. Raises what `action` raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / f"{name}.done"
    with locked(folder / f"{name}.lock"):
        if marker.is_file() and marker.read_text(encoding="utf-8") == content:
            return
        marker.unlink(missing_ok=True)
        action()
        marker.write_text(content, encoding="utf-8")


def unreadable(dataset: str, error: NotFound) -> NotFound:
    message = f"dataset {dataset} cannot be read: {error.message}"
    return NotFound(message, hint=Command("sync", below_data_blobs(dataset)))


def mark_placed(folders: NodeFolders, dataset: str, manifest_key: str) -> None:
    """The dataset is at its path already."""
    folders.state_dir.mkdir(parents=True, exist_ok=True)
    (folders.state_dir / f"{_marker(dataset)}.done").write_text(manifest_key, encoding="utf-8")


def _marker(dataset: str) -> str:
    return f"dataset-{dataset.replace('/', '%')}"


Log = Callable[[str], None]
_SHOW_EVERY_S = 5.0
_MOST_ATTEMPT_BYTES = 1000
"""Of the count of starts: one small number."""


def place_datasets(store: Store, record: RunRecord, folders: NodeFolders, log: Log) -> None:
    """Every dataset at its path below `data_blobs/`. Raises NotFound, IntegrityError, ServiceUnavailable."""
    folders.data_blobs_dir.mkdir(parents=True, exist_ok=True)
    if not record.spec.manifests:
        return
    from amlctl.snapshots.receive import materialise  # here, since a run without data does not need it

    # A dataset inside another one comes after it and takes its place there.
    for dataset in sorted(record.spec.manifests):
        manifest_key = record.spec.manifests[dataset]
        target = folders.data_blobs_dir / dataset

        def place(manifest_key: str = manifest_key, target: Path = target) -> None:
            _remove(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            materialise(store, manifest_key, target, mode=record.spec.mode, sink=PlacingLog(log))

        try:
            once(folders.state_dir, _marker(dataset), manifest_key, place)
        except NotFound as error:
            raise unreadable(dataset, error) from error


class PlacingLog:
    """Satisfies `EventSink`: a line now and then, since the log of a node is all that shows how far it is."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._shown_s = time.monotonic()

    def __call__(self, event: Event) -> None:
        now_s = time.monotonic()
        if isinstance(event, StageProgress) and now_s - self._shown_s >= _SHOW_EVERY_S:
            self._shown_s = now_s
            self._log(f"placing {event.subject}: {size(event.done_bytes)} of {size(event.total_bytes or 0)}")


def write_config(record: RunRecord, folders: NodeFolders, secrets: Mapping[str, str]) -> Path | None:
    """The run's config as it was submitted, under its own name; None for a run without one. Raises SettingsError."""
    if record.spec.config is None:
        return None
    data = config_bytes(record.spec, secrets)
    path = folders.config_dir / Path(record.spec.config).name

    def write() -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.touch(mode=0o600 if hidden_in(record.spec.config_content) else 0o666)
        path.write_bytes(data)

    once(folders.state_dir, "config", record.run, write)
    return path


def count_attempt(store: Store, run: str, rank: NodeRank) -> int:
    """Which start of this node this is, from 1; the first process on the node counts."""
    key = attempt_key(run, rank.node)
    try:
        before = int(json.loads(store.get(key, length=_MOST_ATTEMPT_BYTES))["attempt"])
    except (NotFound, ValueError, KeyError, TypeError):
        before = 0
    if not rank.is_first_process:
        return max(1, before)
    store.put(key, json.dumps({"attempt": before + 1}).encode(), replace=True)
    return before + 1


def restore_outputs(store: Store, run: str, rank: NodeRank, folders: NodeFolders) -> None:
    """Put back what an earlier attempt saved. Raises IntegrityError, ServiceUnavailable."""
    folders.outputs_dir.mkdir(parents=True, exist_ok=True)
    tree = outputs_tree(run, rank.node)
    index = read_tree_index(store, tree.index_key)
    if index is not None and index.files:
        place = Place(folders.outputs_dir)
        once(folders.state_dir, "outputs", run, lambda: restore_tree(store, tree, place, index=index))


class OutputsSaver:
    """Saves the outputs every `interval_s` in a thread, and once more at the end."""

    def __init__(
        self, store: Store, run: str, rank: NodeRank, folders: NodeFolders, interval_s: float, log: Log
    ) -> None:
        self._tree = TreeSaver(store, folders.outputs_dir, outputs_tree(run, rank.node))
        self._interval_s = interval_s
        self._log = log
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._save_now_and_then, name="outputs-saver", daemon=True)

    def save(self) -> None:
        """Not while the thread runs. Raises RightsError, ServiceUnavailable."""
        self._tree.save()

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> bool:
        """End the thread and save the outputs with every file read; False where a file could not be saved.

        Raises RightsError, ServiceUnavailable.
        """
        self._is_ending.set()
        if self._thread.is_alive():
            self._thread.join()
        self._tree.save(is_last=True)
        for line in self._tree.not_kept():
            self._log(line)
        return not self._tree.refused

    def _save_now_and_then(self) -> None:
        reported = ""
        while not self._is_ending.wait(self._interval_s):
            try:
                self._tree.save()
            except (AmlctlError, OSError) as error:
                # The next save may succeed: the store may be back by then.
                if str(error) != reported:
                    reported = str(error)
                    self._log(f"outputs cannot be saved at the moment: {reported}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        remove_tree(path)
    else:
        path.unlink(missing_ok=True)
