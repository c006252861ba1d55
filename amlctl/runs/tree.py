"""Trees of plain files in a store, with an index of their content ids: the outputs of a run, or a code snapshot.

The index is written after its files, so whatever it names is there. Before files of the index are replaced, an
index names their new contents as `pending`: a reader accepts the old bytes as well as the new ones, so a run that is
saving does not look damaged. `tree_saver` writes the trees of runs.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from amlctl.core.content_id import ContentHasher, is_content_id
from amlctl.core.document import MOST_BYTES, Fields, check_of, parse_maybe_packed
from amlctl.core.events import EventSink, Stage, null_sink
from amlctl.core.manifest import check_path
from amlctl.core.message import Command, Message
from amlctl.core.store_keys import StoredTree
from amlctl.errors import AmlctlError, IntegrityError, NotFound
from amlctl.localfs.atomic import set_mode, set_mtime
from amlctl.localfs.folders import make_folders
from amlctl.localfs.read_file import file_content_id
from amlctl.localfs.target import NotAFolder, TargetFolders, clear, in_the_way
from amlctl.parallel import in_parallel
from amlctl.snapshots.contents import Value, downloaded
from amlctl.snapshots.transfers import Transfers, taking_turns
from amlctl.stores.contract import OnBytes, Store

FORMAT = 2
"""Format 1 has neither times nor layers nor empty folders; code snapshots still have it."""
_ATTEMPTS = 5
"""Attempts to read a file while the run replaces it."""


class TreeFile(NamedTuple):
    """Path relative to the tree (POSIX), size in bytes, executable bit, content id; mtime in nanoseconds (0: unknown).

    A path that ends with `/` is an empty folder, which has no bytes in the store. For `layer` see `stored_key`.
    """

    path: str
    size_bytes: int
    is_executable: bool
    content_id: str
    mtime_ns: int = 0
    layer: int = 0

    @property
    def is_folder(self) -> bool:
        return self.path.endswith("/")

    def has_bytes_of(self, other: TreeFile) -> bool:
        return self[:4] == other[:4]


@dataclass(frozen=True)
class TreeIndex:
    """`pending`: what is about to replace some of the files."""

    files: Sequence[TreeFile] = ()
    pending: Sequence[TreeFile] = ()
    format: int = FORMAT


def stored_key(prefix: str, file: TreeFile) -> str:
    """Key of the bytes: `<prefix>path`, in layer N `<prefix without its slash>.N/path`.

    A folder store cannot have both `a` and `a/b`. Where one replaces the other, the new one goes to another layer, so
    that the old one exists until the index names the new one.
    """
    return (prefix if file.layer == 0 else f"{prefix[:-1]}.{file.layer}/") + file.path


class Restored(NamedTuple):
    """`files`, `size_bytes`: all that was requested; `downloaded_…`: what was missing."""

    files: int
    size_bytes: int
    downloaded_files: int
    downloaded_bytes: int


def tree_file(source: Path, path: str) -> TreeFile:
    """What the file is now. Raises OSError."""
    hasher, size = ContentHasher(), 0
    # O_NONBLOCK: a pipe that replaced a file must not block.
    with os.fdopen(os.open(source, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as file:
        while part := file.read(1 << 20):
            hasher.update(part)
            size += len(part)
        seen = os.fstat(file.fileno())
    return TreeFile(path, size, bool(seen.st_mode & 0o100), hasher.hexdigest(), seen.st_mtime_ns)


def encode_index(files: Sequence[TreeFile]) -> bytes:
    """Format 1, for trees without times."""
    return (json.dumps({"files": [list(file[:4]) for file in files]}) + "\n").encode()


def encode_tree_index(files: Sequence[TreeFile], pending: Sequence[TreeFile] = ()) -> bytes:
    document: dict[str, Any] = {"format": FORMAT, "files": [list(file) for file in files]}
    if pending:
        document["pending"] = [list(file) for file in pending]
    return (json.dumps({**document, "check": check_of(document)}) + "\n").encode()


def read_index(store: Store, index_key: str) -> Optional[Sequence[TreeFile]]:
    """Its files; None where nothing was saved yet. Raises IntegrityError."""
    found = read_tree_index(store, index_key)
    return None if found is None else found.files


def read_tree_index(store: Store, index_key: str) -> Optional[TreeIndex]:
    """None where nothing was saved yet. Raises IntegrityError."""
    try:
        fields = Fields(parse_maybe_packed(store.get(index_key, length=MOST_BYTES + 1)))
        number = fields.number("format", least=1, most=FORMAT) if "format" in fields else 1
        if number > 1:
            fields.require_check()
        rows = fields.array("files"), fields.array("pending", ())
        files, pending = ([_file(one) for one in some] for some in rows)
    except NotFound:
        return None
    except ValueError as error:
        raise IntegrityError(
            f"{index_key} in the store cannot be read: {error}",
            hint=Message(Command("store", "verify"), " lists what is damaged"),
        ) from error
    return TreeIndex(files, pending, number)


def _file(values: object) -> TreeFile:
    """Raises ValueError."""
    if not isinstance(values, list) or not 4 <= len(values) <= 6:
        raise ValueError(f"invalid entry {str(values)[:200]}")
    file = TreeFile(*values)
    kinds = [type(value) for value in file]
    if kinds != [str, int, bool, str, int, int] or not is_content_id(file.content_id) or file[1] < 0 or file[5] < 0:
        raise ValueError(f"invalid entry {str(values)[:200]}")
    try:
        check_path(file.path)
        file.path.encode("utf-8", "surrogateescape")
    except IntegrityError as error:
        raise ValueError(error.message) from error
    return file


class Place:
    """A folder that files come to; here they replace all that is in their way. Thread-safe; paths are relative to the
    folder."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.spared: set[str] = set()
        """Paths of what was not replaced."""

    def may_replace(self, path: str) -> bool:
        """Whether the file at this path may be replaced."""
        return True

    def announce(self, contents: Mapping[str, Iterable[str]]) -> None:
        """Content ids that are about to be written, by path; before any of them appears."""

    def settle(self, contents: Mapping[str, str]) -> None:
        """Content ids that are there now, by path."""

    def make_way(self, path: str) -> bool:
        """Whether a file (with a final `/` a folder) may come there; anything of another kind was removed."""
        found = in_the_way(self.target, path)
        if not all(map(self.may_replace, found.files)):
            self.spared.add(found.top)
            return False
        if found.must_go:
            clear(self.target, found.top)
        return True

    def adopt(self, temporary: Path, path: str, folders: TargetFolders) -> bool:
        """False where the file was edited during the download, or a link was made above it."""
        above, _, name = path.rpartition("/")
        try:
            if self.may_replace(path) and not in_the_way(self.target, path).must_go:
                folders.opened(above, make=True)
                folders.adopt(temporary, above, name)
                return True
        except NotAFolder:
            pass
        self.spared.add(path)
        return False


def restore_tree(
    store: Store,
    tree: StoredTree,
    place: Place,
    *,
    index: Optional[TreeIndex] = None,
    below: str = "",
    include: Callable[[str], bool] = lambda path: True,
    sink: EventSink = null_sink,
) -> Restored:
    """Download the files of a tree to a place, or to the folder `below` in it (`rank-1/`); files with the right bytes
    are kept.

    Other files at their paths are replaced where the place allows it. A damaged file does not stop the others. `index`
    is the tree's, if it was read already. Raises NotFound (no index, or none any more), IntegrityError.
    """
    index = index or read_tree_index(store, tree.index_key)
    if index is None:
        raise NotFound(f"{tree.index_key} is not in the store {store.url}")
    wanted = [file for file in index.files if include(file.path)]
    with TargetFolders(place.target) as folders:
        prefix = tree.prefix_in(index.format)
        restore = _Restore(store, prefix, tree.index_key, place, below, folders, index.pending)
        return _restored(restore, wanted, Transfers(Stage.RECEIVE, tree.owner, sink))


def _restored(restore: _Restore, wanted: Sequence[TreeFile], transfers: Transfers) -> Restored:
    missing = restore.prepare(wanted)
    files = taking_turns((file for file in missing if not file.is_folder), lambda file: file.size_bytes)
    total_bytes = sum(file.size_bytes for file in files)
    transfers.expect(len(files), total_bytes, len(files))
    if files:
        transfers.begin()

    def download(file: TreeFile) -> int:
        transfer = transfers.transfer(1, file.size_bytes, file.size_bytes)
        size = restore.download(file, transfer.moved)
        transfer.done()
        return size

    done_bytes = sum(in_parallel(download, files, restore.store.concurrency))
    transfers.finish()
    restore.end()
    wanted_files = [file for file in wanted if not file.is_folder]
    size_bytes = sum(file.size_bytes for file in wanted_files)
    return Restored(len(wanted_files), size_bytes, len(files), done_bytes)


@dataclass
class _Restore:
    """One restore; `download` runs in several threads."""

    store: Store
    prefix: str
    index_key: str
    place: Place
    below: str
    folders: TargetFolders
    pending: Sequence[TreeFile]
    _present: dict[str, str] = field(default_factory=dict)
    _failures: list[AmlctlError] = field(default_factory=list)

    def prepare(self, wanted: Sequence[TreeFile]) -> list[TreeFile]:
        """The files to download, after obstacles at their paths were removed."""
        missing = [one for one in wanted if not self._is_there(one) and self.place.make_way(self.below + one.path)]
        if missing:
            files = [file for file in missing if not file.is_folder]
            self.place.announce({self.below + file.path: _versions(file, self.pending) for file in files})
            make_folders(self.place.target)
        return [file for file in missing if self._has_folder(file)]

    def _has_folder(self, file: TreeFile) -> bool:
        """The one that it is, or needs, which is made. False where a link, say, has just taken its place."""
        path = self.below + file.path
        try:
            self.folders.opened(path.rpartition("/")[0], make=True)
        except NotAFolder:
            self.place.spared.add(path)
            return False
        return True

    def _is_there(self, file: TreeFile) -> bool:
        place, at = self.place, self.below + file.path
        path = place.target / at
        if file.is_folder:
            return path.is_dir() and not path.is_symlink()
        try:
            seen = path.stat()
            if seen.st_size != file.size_bytes or not path.is_file():
                return False
            if file_content_id(path) != file.content_id or in_the_way(place.target, at).top != at:
                return False
            is_exact = seen.st_mtime_ns == (file.mtime_ns or seen.st_mtime_ns) and _mode_fits(seen, file)
            if not is_exact and not path.is_symlink() and place.may_replace(at):
                _adjust(path, seen, file)
        except OSError:
            return False
        self._present[at] = file.content_id
        return True

    def download(self, file: TreeFile, on_bytes: OnBytes) -> int:
        """Bytes written; 0 for a file that the run has deleted since the index was read."""
        try:
            return self._download(file, on_bytes)
        except IntegrityError as error:
            self._failures.append(error)
            return 0

    def _download(self, file: TreeFile, on_bytes: OnBytes) -> int:
        at, versions = self.below + file.path, _versions(file, self.pending)
        for _ in range(_ATTEMPTS):
            mode = 0o777 if file.is_executable else 0o666
            key = stored_key(self.prefix, file)
            try:
                expected = Value(file.content_id, file.size_bytes)
                arriving = downloaded(self.store, key, expected, self.place.target, mode=mode, on_bytes=on_bytes)
                with arriving as temporary:
                    content = file_content_id(temporary)
                    if content in versions:
                        size = temporary.stat().st_size
                        if versions[content]:
                            set_mtime(temporary, versions[content])
                        if not self.place.adopt(temporary, at, self.folders):
                            return 0
                        self._present[at] = content
                        return size
            except NotFound:
                pass
            # The run has saved more since the index was read.
            index = read_tree_index(self.store, self.index_key)
            if index is None:
                raise NotFound(f"{self.index_key} was deleted while its files were downloaded", hint=Command("runs"))
            again = next((found for found in index.files if found.path == file.path), None)
            if again is None:
                return 0
            before, versions, file = (stored_key(self.prefix, file), versions), _versions(again, index.pending), again
            if (stored_key(self.prefix, file), versions) == before:
                break
            self.place.announce({at: versions})
        raise IntegrityError(
            f"the store's copy of {stored_key(self.prefix, file)} is damaged", hint="run the script again"
        )

    def end(self) -> None:
        """Raises IntegrityError where files are damaged; all others are there."""
        self.place.settle(self._present)
        if not self._failures:
            return
        first = self._failures[0]
        if len(self._failures) == 1:
            raise first
        raise IntegrityError(
            f"{len(self._failures)} files of {self.index_key} are damaged in the store; all others were downloaded",
            hint=first.hint,
            details=[failure.message for failure in self._failures],
        )


def _versions(file: TreeFile, pending: Iterable[TreeFile]) -> dict[str, int]:
    """Content ids that the store may have under the path of `file`, with their mtimes."""
    newer = {one.content_id: one.mtime_ns for one in pending if one.path == file.path}
    return {**newer, file.content_id: file.mtime_ns}


def _mode_fits(seen: os.stat_result, file: TreeFile) -> bool:
    return bool(seen.st_mode & 0o100) == file.is_executable


def _adjust(path: Path, seen: os.stat_result, file: TreeFile) -> None:
    """Time and mode, where the bytes are right."""
    if file.mtime_ns:
        set_mtime(path, file.mtime_ns)
    if not _mode_fits(seen, file):
        set_mode(path, seen.st_mode | 0o111 if file.is_executable else seen.st_mode & ~0o111)
