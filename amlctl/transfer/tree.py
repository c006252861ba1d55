"""Trees of plain files in a store, with an index of their content ids: what a run has put out.

The index is written after its files, so whatever it names is there. Before files of the index are replaced, an
index names their new contents as `pending`: a reader takes the old bytes as well as the new ones, and never takes
a run that is saving for a damaged one.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from amlctl.core.content_id import ContentHasher, is_content_id
from amlctl.core.document import Fields, checked_number, parse_maybe_packed
from amlctl.core.events import EventSink, Stage, StageProgress, null_sink
from amlctl.core.manifest import check_path
from amlctl.errors import Conflict, IntegrityError, NotFound, SettingsError
from amlctl.localfs.atomic import TEMPORARY_PREFIX
from amlctl.localfs.stat_cache import RACY_NS
from amlctl.stores.contract import FileBody, Store
from amlctl.transfer.partial import downloaded

_LOOKS = 5
"""Times that a file which the run is just writing anew is looked for."""

Stats = tuple[int, int, int]
"""Size, mtime in nanoseconds, inode."""


class TreeFile(NamedTuple):
    """Path relative to the tree (POSIX), size in bytes, executable bit, content id."""

    path: str
    size_bytes: int
    is_executable: bool
    content_id: str


@dataclass(frozen=True)
class Restored:
    """`files`, `size_bytes`: all that was asked for; `downloaded_…`: what was not there yet.

    `restored` are the paths that now stand as in the store, `spared` those that were left as they were.
    """

    files: int
    size_bytes: int
    downloaded_files: int
    downloaded_bytes: int
    restored: Sequence[str] = ()
    spared: Sequence[str] = ()


class TreeSaver:
    """Copies a folder into the store again and again, each time only what changed. Not thread-safe."""

    def __init__(self, store: Store, source: Path, prefix: str, index_key: str) -> None:
        """`prefix` ends with `/`; what an earlier saver left in the index is taken over."""
        self._store = store
        self._source = source
        self._prefix = prefix
        self._index_key = index_key
        files, pending = _read_whole_index(store, index_key) or (None, [])
        self._saved: dict[str, TreeFile] = {file.path: file for file in files or []}
        self._has_index = files is not None
        self._unsure: dict[str, set[TreeFile]] = {}
        """What the store may have instead of what was saved: a save of it did not come to its end."""
        for file in pending:
            self._unsure.setdefault(file.path, set()).add(file)
        self._stats: dict[str, Stats] = {}
        self.refused: dict[str, str] = {}
        """Of the last save: what cannot be read, or has a name that the store cannot have, each with the reason."""

    def save(self) -> int:
        """Copy what is new or changed, write the index, remove what vanished; the number of files copied.

        A file that changes under the copy keeps its earlier copy and is taken next time. After an error the next
        save goes on.
        """
        trusted_before_ns = time.time_ns() - RACY_NS
        found: dict[str, TreeFile] = {}
        changed: dict[str, TreeFile] = {}
        stats: dict[str, Stats] = {}
        self.refused = {}
        walked = _walk(self._source, self.refused)
        for path, seen in walked:
            before = None if path in self._unsure else self._saved.get(path)
            if before is not None and self._stats.get(path) == seen:
                found[path] = before
                continue
            try:
                file = _tree_file(self._source / path, path)
            except FileNotFoundError:
                continue
            except OSError as error:
                self.refused[path] = _why(path, error)
                continue
            if seen[1] < trusted_before_ns:
                stats[path] = seen
            if file == before:
                found[path] = file
            else:
                changed[path] = file
        for path in self._saved if self.refused else ():
            if not self.refused.keys().isdisjoint((path, *_above(path))):
                found[path] = self._saved[path]  # an earlier copy is better than none
        self._make_room(changed, {*found, *changed})
        announced = self._announce(changed)
        copied: list[TreeFile] = []
        with ThreadPoolExecutor(max(1, min(self._store.concurrency, len(changed)))) as pool:
            for file, is_copied in zip(changed.values(), pool.map(self._copy, changed.values())):
                if is_copied:
                    copied.append(file)
                    found[file.path] = file
                    continue
                stats.pop(file.path, None)
                if file.path in self._saved:
                    found[file.path] = self._saved[file.path]
                if file in announced:
                    self._unsure[file.path].discard(file)
        gone = self._saved.keys() - found.keys()
        settled = gone.union(file.path for file in copied)
        unsure = {path: files for path, files in self._unsure.items() if files and path not in settled}
        if changed or gone or not self._has_index:
            self._put_index(found.values(), unsure)
            self._has_index = True
        # Not before the index is there: until then any of the new files may have to be doubted again.
        self._unsure, self._saved = unsure, found
        self._stats.update(stats)
        for path in gone:
            self._store.delete(self._prefix + path)
        return len(copied)

    def _make_room(self, changed: Mapping[str, TreeFile], present: set[str]) -> None:
        """Where a folder takes the place of a saved file, or a file that of a folder, what was saved goes first."""
        folders = {above for path in changed for above in _above(path)}
        in_the_way = [
            path
            for path in self._saved
            if path not in present and (path in folders or not changed.keys().isdisjoint(_above(path)))
        ]
        if not in_the_way:
            return
        for path in in_the_way:
            del self._saved[path]
            self._unsure.pop(path, None)
        self._put_index(self._saved.values(), self._unsure)
        for path in in_the_way:
            self._store.delete(self._prefix + path)

    def _announce(self, changed: Mapping[str, TreeFile]) -> set[TreeFile]:
        """Before a saved file is replaced, readers are told by what; the files that they were not told of before."""
        replaced = [file for path, file in changed.items() if path in self._saved]
        new = {file for file in replaced if file not in self._unsure.get(file.path, ())}
        for file in new:
            self._unsure.setdefault(file.path, set()).add(file)
        if new:
            self._put_index(self._saved.values(), self._unsure)
        return new

    def _copy(self, file: TreeFile) -> bool:
        body = FileBody(self._source / file.path, file.size_bytes, file.content_id)
        try:
            self._store.put(self._prefix + file.path, body, replace=True)
        except Conflict:  # it has changed meanwhile, and nothing of it was written
            return False
        except SettingsError as error:
            self.refused[file.path] = error.message
            return False
        return True

    def _put_index(self, files: Iterable[TreeFile], unsure: Mapping[str, set[TreeFile]]) -> None:
        pending = sorted(file for doubtful in unsure.values() for file in doubtful)
        self._store.put(self._index_key, encode_index(sorted(files), pending), replace=True)


def _walk(root: Path, unreadable: dict[str, str]) -> list[tuple[str, Stats]]:
    """Regular files below `root` with size, mtime and inode, sorted; links are followed to files only.

    Folders that cannot be read are added to `unreadable`, with the reason.
    """

    def note(error: OSError) -> None:
        path = os.path.relpath(error.filename, root)
        if not isinstance(error, FileNotFoundError):
            unreadable[path] = _why(path, error)

    found = []
    for folder, _, names in os.walk(root, onerror=note):
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


def _above(path: str) -> list[str]:
    """The folders that the path lies in, relative to the tree."""
    return [str(folder) for folder in PurePosixPath(path).parents if folder.name]


def _why(path: str, error: OSError) -> str:
    return f"{path} cannot be read: {error.strerror or error}"


def _tree_file(source: Path, path: str) -> TreeFile:
    hasher = ContentHasher()
    size = 0
    with source.open("rb") as file:
        while part := file.read(1 << 20):
            hasher.update(part)
            size += len(part)
        mode = os.fstat(file.fileno()).st_mode
    return TreeFile(path, size, bool(mode & 0o100), hasher.content_id())


def encode_index(files: Sequence[TreeFile], pending: Sequence[TreeFile] = ()) -> bytes:
    document = {"files": [list(file) for file in files], **({"pending": [list(f) for f in pending]} if pending else {})}
    return (json.dumps(document) + "\n").encode()


def _tree_file_of(row: object) -> TreeFile:
    """Raises ValueError."""
    if not isinstance(row, list) or len(row) != 4:
        raise ValueError("a file is not named by path, size, executable bit and content id")
    path, size, is_executable, content = row
    is_typed = type(path) is str and type(is_executable) is bool and type(content) is str
    if not is_typed or not is_content_id(content):
        raise ValueError("a file has a value of the wrong type")
    try:
        check_path(path)
        path.encode("utf-8", "surrogateescape")
    except IntegrityError as error:
        raise ValueError(error.message) from error
    return TreeFile(path, checked_number(size, "size of a file"), is_executable, content)


def read_index(store: Store, index_key: str) -> list[TreeFile] | None:
    """None where nothing was saved yet. Raises IntegrityError."""
    found = _read_whole_index(store, index_key)
    return None if found is None else found[0]


def read_pending(store: Store, index_key: str) -> list[TreeFile]:
    """What is about to take the place of files of the index. Raises IntegrityError."""
    found = _read_whole_index(store, index_key)
    return [] if found is None else found[1]


def _read_whole_index(store: Store, index_key: str) -> tuple[list[TreeFile], list[TreeFile]] | None:
    """The files, and what is about to take the place of some of them."""
    try:
        fields = Fields(parse_maybe_packed(store.get(index_key)))
        rows = fields.array("files"), fields.array("pending", ())
        files, pending = ([_tree_file_of(row) for row in some] for some in rows)
    except NotFound:
        return None
    except ValueError as error:
        raise IntegrityError(
            f"{index_key} in the store cannot be read: {error}", hint="amlctl store verify lists what is damaged"
        ) from error
    return files, pending


def _everything(path: str) -> bool:
    return True


def _nothing(path: str) -> bool:
    return False


def restore_tree(
    store: Store,
    prefix: str,
    index_key: str,
    target: Path,
    *,
    include: Callable[[str], bool] = _everything,
    spare: Callable[[str], bool] = _nothing,
    subject: str = "",
    sink: EventSink = null_sink,
) -> Restored:
    """Make the files of a tree stand below `target`; what is there with the right bytes is left alone.

    A file with other bytes is replaced, unless `spare` says of its path that it must not be.
    Raises NotFound (no index), IntegrityError.
    """
    found = _read_whole_index(store, index_key)
    if found is None:
        raise NotFound(f"{index_key} is not in the store {store.url}")
    index, pending = found
    wanted = {file.path: file for file in index if include(file.path)}
    different = [file for file in wanted.values() if not _is_there(target, file)]
    spared = {file.path for file in different if spare(file.path)}
    missing = [file for file in different if file.path not in spared]
    total_bytes = sum(file.size_bytes for file in missing)
    done_bytes = 0
    if missing:
        sink(StageProgress(Stage.RECEIVE, subject, 0, 0, len(missing), total_bytes))
    with ThreadPoolExecutor(max(1, min(store.concurrency, len(missing)))) as pool:
        results = pool.map(lambda file: _fetch(store, prefix, index_key, target, file, pending), missing)
        for number, size in enumerate(results, 1):
            done_bytes += size
            is_done = number == len(missing)
            sink(StageProgress(Stage.RECEIVE, subject, number, done_bytes, len(missing), total_bytes, is_done))
    size_bytes = sum(file.size_bytes for file in wanted.values())
    restored = [path for path in wanted if path not in spared]
    return Restored(len(wanted), size_bytes, len(missing), done_bytes, restored, sorted(spared))


def _is_there(target: Path, file: TreeFile) -> bool:
    path = target / file.path
    try:
        seen = path.stat()
        return seen.st_size == file.size_bytes and _tree_file(path, file.path) == file
    except OSError:
        return False


def _fetch(store: Store, prefix: str, index_key: str, target: Path, file: TreeFile, pending: Sequence[TreeFile]) -> int:
    """Bytes written; 0 for a file that the run has removed since the index was read."""
    path = target / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    named = _contents(file, pending)
    for _ in range(_LOOKS):
        mode = 0o777 if file.is_executable else 0o666
        try:
            with downloaded(store, prefix + file.path, file.content_id, file.size_bytes, path, mode=mode) as temporary:
                size = temporary.stat().st_size
                if _tree_file(temporary, file.path).content_id in named:
                    temporary.replace(path)
                    return size
        except NotFound:
            pass
        # The run has gone on saving since the index was read.
        files, pending = _read_whole_index(store, index_key) or ([], [])
        again = next((found for found in files if found.path == file.path), None)
        if again is None:
            return 0
        named_before, named = named, _contents(again, pending)
        if named == named_before:
            break
    raise IntegrityError(f"the store's copy of {prefix}{file.path} is damaged", hint="run the script again")


def _contents(file: TreeFile, pending: Sequence[TreeFile]) -> set[str]:
    """Content ids that the store may have under the path of `file`."""
    return {file.content_id, *(newer.content_id for newer in pending if newer.path == file.path)}
