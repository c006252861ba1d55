"""Trees of plain files in a store, with an index of their content ids: what a run has put out.

The index is written after its files, so whatever it names is there. A reader that meets a file newer than the
index (the run goes on writing) reads the index again.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from amlctl.core.content_id import ContentHasher
from amlctl.core.events import EventSink, Stage, StageProgress, null_sink
from amlctl.core.manifest import check_path
from amlctl.errors import Conflict, IntegrityError, NotFound
from amlctl.localfs.atomic import TEMPORARY_PREFIX, temporary_beside
from amlctl.stores.contract import FileBody, Store


class TreeFile(NamedTuple):
    """Path relative to the tree (POSIX), size in bytes, executable bit, content id."""

    path: str
    size_bytes: int
    is_executable: bool
    content_id: str


@dataclass(frozen=True)
class Restored:
    """`files`, `size_bytes`: all that was asked for; `downloaded_…`: what was not there yet."""

    files: int
    size_bytes: int
    downloaded_files: int
    downloaded_bytes: int


class TreeSaver:
    """Copies a folder into the store again and again, each time only what changed. Not thread-safe."""

    def __init__(self, store: Store, source: Path, prefix: str, index_key: str) -> None:
        """`prefix` ends with `/`; what an earlier saver left in the index is taken over."""
        self._store = store
        self._source = source
        self._prefix = prefix
        self._index_key = index_key
        saved = read_index(store, index_key)
        self._saved: dict[str, TreeFile] = {file.path: file for file in saved or []}
        self._has_index = saved is not None
        self._stats: dict[str, tuple[int, int, int]] = {}

    def save(self) -> int:
        """Copy what is new or changed, write the index, remove what vanished; the number of files copied.

        A file that changes under the copy keeps its earlier copy and is taken next time.
        """
        found: dict[str, TreeFile] = {}
        copied = 0
        for path, seen in _walk(self._source):
            if self._stats.get(path) == seen and path in self._saved:
                found[path] = self._saved[path]
                continue
            file = self._copy(path)
            if file is None:
                if path in self._saved:
                    found[path] = self._saved[path]
                continue
            copied += file != self._saved.get(path)
            found[path] = file
            self._stats[path] = seen
        gone = self._saved.keys() - found.keys()
        if found != self._saved or not self._has_index:
            self._store.put(self._index_key, encode_index(list(found.values())), replace=True)
            self._has_index = True
            for path in gone:
                self._store.delete(self._prefix + path)
        self._saved = found
        return copied

    def _copy(self, path: str) -> TreeFile | None:
        source = self._source / path
        try:
            file = _tree_file(source, path)
            if file != self._saved.get(path):
                body = FileBody(source, file.size_bytes, file.content_id)
                self._store.put(self._prefix + path, body, replace=True)
        except (FileNotFoundError, Conflict):
            return None
        return file


def _walk(root: Path) -> list[tuple[str, tuple[int, int, int]]]:
    """Regular files below `root` with size, mtime and inode, sorted; links are followed to files only."""
    found = []
    for folder, _, names in os.walk(root):
        relative = os.path.relpath(folder, root)
        for name in names:
            try:
                seen = os.stat(f"{folder}/{name}")
            except OSError:
                continue
            if stat.S_ISREG(seen.st_mode) and not name.startswith(TEMPORARY_PREFIX):
                path = name if relative == "." else f"{relative}/{name}"
                found.append((path, (seen.st_size, seen.st_mtime_ns, seen.st_ino)))
    return sorted(found)


def _tree_file(source: Path, path: str) -> TreeFile:
    hasher = ContentHasher()
    size = 0
    with source.open("rb") as file:
        while part := file.read(1 << 20):
            hasher.update(part)
            size += len(part)
        mode = os.fstat(file.fileno()).st_mode
    return TreeFile(path, size, bool(mode & 0o100), hasher.content_id())


def scan_tree(root: Path) -> list[TreeFile]:
    """Every regular file below `root`, read once."""
    return [_tree_file(root / path, path) for path, _ in _walk(root)]


def encode_index(files: Sequence[TreeFile]) -> bytes:
    return (json.dumps({"files": [list(file) for file in files]}) + "\n").encode()


def read_index(store: Store, index_key: str) -> list[TreeFile] | None:
    """None where nothing was saved yet. Raises IntegrityError."""
    try:
        document = json.loads(store.get(index_key))
        files = [TreeFile(*file) for file in document["files"]]
        for file in files:
            check_path(file.path)
    except NotFound:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{index_key} in the store cannot be read: {error}") from error
    return files


def _everything(path: str) -> bool:
    return True


def restore_tree(
    store: Store,
    prefix: str,
    index_key: str,
    target: Path,
    *,
    include: Callable[[str], bool] = _everything,
    max_workers: int = 8,
    subject: str = "",
    sink: EventSink = null_sink,
) -> Restored:
    """Make the files of a tree stand below `target`; what is there with the right bytes is left alone.

    Raises NotFound (no index), IntegrityError.
    """
    index = read_index(store, index_key)
    if index is None:
        raise NotFound(f"{index_key} is not in the store {store.url}")
    wanted = {file.path: file for file in index if include(file.path)}
    missing = [file for file in wanted.values() if not _is_there(target, file)]
    total_bytes = sum(file.size_bytes for file in missing)
    done_bytes = 0
    if missing:
        sink(StageProgress(Stage.RECEIVE, subject, 0, 0, len(missing), total_bytes))
    with ThreadPoolExecutor(max(1, min(max_workers, len(missing)))) as pool:
        results = pool.map(lambda file: _fetch(store, prefix, index_key, target, file), missing)
        for number, size in enumerate(results, 1):
            done_bytes += size
            is_done = number == len(missing)
            sink(StageProgress(Stage.RECEIVE, subject, number, done_bytes, len(missing), total_bytes, is_done))
    size_bytes = sum(file.size_bytes for file in wanted.values())
    return Restored(len(wanted), size_bytes, len(missing), done_bytes)


def _is_there(target: Path, file: TreeFile) -> bool:
    path = target / file.path
    try:
        seen = path.stat()
        return seen.st_size == file.size_bytes and _tree_file(path, file.path) == file
    except OSError:
        return False


def _fetch(store: Store, prefix: str, index_key: str, target: Path, file: TreeFile) -> int:
    path = target / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(5):
        temporary = temporary_beside(path)
        try:
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT, 0o777 if file.is_executable else 0o666))
            store.download(prefix + file.path, temporary)
            if _tree_file(temporary, file.path).content_id == file.content_id:
                temporary.replace(path)
                return file.size_bytes
        except NotFound:
            pass
        finally:
            temporary.unlink(missing_ok=True)
        # The run has written it anew since the index was read.
        newer: Mapping[str, TreeFile] = {found.path: found for found in read_index(store, index_key) or []}
        if newer.get(file.path, file) == file:
            break
        file = newer[file.path]
    raise IntegrityError(f"the store's copy of {prefix}{file.path} is damaged", hint="run the script again")
