"""Walk a folder: one compact row of stat data a file, folder by folder, and what could not be taken along.

Behavior that `docs/store-format.md` promises: links are followed (a link that dangles, loops, or leads to a
folder that holds it or to a system folder is left out with a warning); sockets, fifos and devices are left out with a
warning; an empty folder is an entry of its own; what cannot be read is collected, so that all of it is reported.

Rows are kept as `marshal` bytes: 200,000 files take 13 MB, and comparing a folder with its cached row is one
comparison of bytes.
"""

from __future__ import annotations

import errno
import functools
import gc
import marshal
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Optional

import xxhash

from amlctl.core.manifest import ONE_FILE
from amlctl.errors import UsageError
from amlctl.localfs.atomic import TEMPORARY_PREFIX
from amlctl.localfs.disk_errors import failing_disk

if TYPE_CHECKING:
    from amlctl.localfs.ignore import FolderRules, IgnoreRules

RACY_NS = 2_000_000_000
"""A file that changed less than this before it was read may change again without a new time."""
_KIND = 0o170000
_REGULAR = 0o100000
_FOLDER = 0o040000
_LINK = 0o120000
_ONLY_FILES = {_REGULAR}
_ORDINARY = {_REGULAR, _FOLDER}
_NO_ROWS = marshal.dumps(([], []), 2)
stat_fields = attrgetter("st_mode", "st_size", "st_mtime_ns", "st_ino", "st_ctime_ns")
"""Those of `FileRow` behind the name."""
StatFields = tuple[int, ...]
_first = itemgetter(0)

_Careful = tuple[tuple[str, ...], frozenset[str], tuple[str, ...]]
"""Names that make a folder not ordinary: beginnings (each with a dot in front), whole names, endings."""


class FileRow(NamedTuple):
    """Stat data of one file; times in nanoseconds since 1970."""

    name: str
    mode: int
    size_bytes: int
    mtime_ns: int
    inode: int
    ctime_ns: int


class Folder(NamedTuple):
    """`rows`: marshalled names, and the other fields of FileRow, in the order of the file system."""

    path: str
    rows: bytes
    is_empty: bool


@dataclass
class Scan:
    """All folders below `root` (paths relative to it, "" is the root), those of them that are links, and what was left
    out."""

    root: Path
    is_one_file: bool = False
    folders: list[Folder] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return sum(fields[1] for folder in self.folders for fields in marshal.loads(folder.rows)[1])

    def has_small_files(self, below: int, count: int) -> bool:
        """Whether that many have bytes, but fewer than `below`."""
        for folder in self.folders:
            count -= sum(0 < row.size_bytes < below for row in unpack_rows(folder.rows))
            if count <= 0:
                return True
        return False

    def digest(self, seed: bytes = b"") -> bytes:
        """16 bytes that change when any stat data changes. `seed` stands for settings that matter as well."""
        state = xxhash.xxh3_128(seed)
        for folder in self.folders:
            state.update(os.fsencode(folder.path) + b"\0" + bytes([folder.is_empty]))
            state.update(folder.rows)
        return state.digest()


def unpack_rows(rows: bytes) -> list[FileRow]:
    names, stats = marshal.loads(rows)
    return [FileRow(name, *fields) for name, fields in zip(names, stats)]


def unpack_names(rows: bytes) -> Sequence[str]:
    names: Sequence[str] = marshal.loads(rows)[0]
    return names


def pack_rows(rows: Sequence[FileRow]) -> bytes:
    # Version 2 knows no references between objects: equal rows give equal bytes.
    return marshal.dumps(([row[0] for row in rows], [tuple(row[1:]) for row in rows]), 2)


def scan(root: Path, rules: Optional[IgnoreRules] = None) -> Scan:
    """Raises FileNotFoundError where `root` does not exist, UsageError where it is neither file nor folder."""
    result = Scan(root)
    top = _stat_top(root)
    if stat.S_ISREG(top.st_mode):
        result.is_one_file = True
        result.folders.append(Folder("", pack_rows([FileRow(ONE_FILE, *stat_fields(top))]), False))
        return result
    walk = _Walk(result, rules, frozenset({(top.st_dev, top.st_ino)}))
    # Collecting garbage while millions of small objects are made finds nothing and costs a tenth of the time.
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        walk.run()
    finally:
        if was_collecting:
            gc.enable()
    result.folders.sort(key=lambda folder: folder.path)
    return result


def _stat_top(root: Path) -> os.stat_result:
    try:
        top = root.stat()
    except NotADirectoryError as error:
        raise FileNotFoundError(*error.args) from error
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENAMETOOLONG):
            raise
        raise UsageError(f"{root} cannot be a dataset: {os.strerror(error.errno).lower()}") from error
    if stat.S_IFMT(top.st_mode) not in (_REGULAR, _FOLDER):
        raise UsageError(f"{root} is neither a file nor a folder", hint="name a file or folder under data_blobs/")
    return top


class _Walk:
    """Folders still to be read: ordinary ones, and those below a link or an ignore file, which need care."""

    def __init__(self, result: Scan, rules: Optional[IgnoreRules], top: frozenset[tuple[int, int]]) -> None:
        self._result = result
        self._rules = rules
        self._top = top
        self._plain: list[tuple[str, str]] = []
        self._careful: list[tuple[str, str, frozenset[tuple[int, int]]]] = []
        self._top_rules = _rules_here(rules, "", os.fspath(result.root))
        screen = self._top_rules.screen() if self._top_rules is not None else (frozenset(), ())
        self._are_all_careful = screen is None
        whole, endings = screen or (frozenset(), ())
        self._names: _Careful = ((TEMPORARY_PREFIX, *(rules.file_names if rules is not None else ())), whole, endings)

    def run(self) -> None:
        self._plain.append(("", os.fspath(self._result.root)))
        while self._plain or self._careful:
            if self._careful:
                self._read_carefully(*self._careful.pop())
            else:
                self._read_plainly(*self._plain.pop())

    def _read_plainly(self, path: str, full: str) -> None:
        try:
            found = None if self._are_all_careful else _read_plain_folder(full, self._names)
        except OSError:
            found = None
        if found is None:
            self._careful.append((path, full, self._top))
            return
        rows, names = found
        if names and self._rules is not None:
            here = self._rules.enter(path, ())
            names = [name for name in names if here.match(name, True) is None]
        self._result.folders.append(Folder(path, rows, rows == _NO_ROWS and not names))
        prefix = f"{path}/" if path else ""
        self._plain += [(prefix + name, f"{full}/{name}") for name in names]

    def _read_carefully(self, path: str, full: str, above: frozenset[tuple[int, int]]) -> None:
        """One folder, and everything below it, with rules and links looked at."""
        try:
            rules = _rules_here(self._rules, path, full)
            folder, below = _scan_folder(self._result, path, full, above, rules)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            if (failure := failing_disk(error, full)) is not None:
                raise failure from error
            self._result.unreadable.append(f"{path or '.'}: {error.strerror}")
            return
        self._result.folders.append(folder)
        has_own_rules = rules is not None and self._top_rules is not None and not rules.are_those_of(self._top_rules)
        for inner_path, inner_full, above_it in reversed(below):
            # Below a link a folder can come round again; below an ignore file its rules hold.
            if has_own_rules or self._are_all_careful or len(above_it) > 1:
                self._careful.append((inner_path, inner_full, above_it))
            else:
                self._plain.append((inner_path, inner_full))


def _read_plain_folder(path: str, careful: _Careful) -> Optional[tuple[bytes, list[str]]]:
    """As fast as Python can: marshalled (names, stat fields) of the files in it, and the names of the folders. None
    where it holds anything but files and folders, or a name that asks for care.

    Raises OSError.
    """
    beginnings, whole, endings = careful
    # By descriptor the system looks up one name a file, not the whole path: a fifth of the time on a deep one.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        names = os.listdir(descriptor)
        lstat = os.lstat  # names and a call each are faster than entries of `scandir` with a method
        stats = [stat_fields(lstat(name, dir_fd=descriptor)) for name in names]
    except FileNotFoundError:
        return None
    finally:
        os.close(descriptor)
    folders: list[str] = []
    kinds = {mode & _KIND for mode in set(map(_first, stats))}
    if (
        not kinds <= _ORDINARY
        or ("." in set(map(_first, names)) and any(name.startswith(beginnings) for name in names))
        or not whole.isdisjoint(names)
        or (endings and any(name.endswith(endings) for name in names))
    ):
        return None
    if not kinds <= _ONLY_FILES:
        folders = [name for name, fields in zip(names, stats) if fields[0] & _KIND == _FOLDER]
        names, stats = (
            [name for name, fields in zip(names, stats) if fields[0] & _KIND == _REGULAR],
            [fields for fields in stats if fields[0] & _KIND == _REGULAR],
        )
    # Version 2 knows no references between objects: equal rows give equal bytes.
    return marshal.dumps((names, stats), 2), folders


def _scan_folder(
    result: Scan, path: str, full: str, above: frozenset[tuple[int, int]], rules: Optional[FolderRules]
) -> tuple[Folder, list[tuple[str, str, frozenset[tuple[int, int]]]]]:
    """The folder, and the folders in it with those above them."""
    active = None if rules is None or rules.is_empty else rules
    rows: list[FileRow] = []
    below: list[tuple[str, str, frozenset[tuple[int, int]]]] = []
    prefix = f"{path}/" if path else ""
    with os.scandir(full) as entries:
        for entry in entries:
            name = entry.name
            found = _stat_of(result, entry, prefix, active)
            if found is None:
                continue
            kind = found.st_mode & _KIND
            if active is not None and active.match(name, kind == _FOLDER) is not None:
                continue
            if kind == _REGULAR:
                if not name.startswith(TEMPORARY_PREFIX):
                    rows.append(FileRow(name, *stat_fields(found)))
            elif kind == _FOLDER:
                inside = above
                if entry.is_symlink() or len(above) > 1:
                    if found.st_dev in _system_devices():
                        result.warnings.append(f"{prefix}{name}: the link leads to a system folder; left out")
                        continue
                    # Only below a link can a folder come round again.
                    if (found.st_dev, found.st_ino) in _ancestors(above, result.root, path):
                        result.warnings.append(f"{prefix}{name}: the link leads back to a folder above; left out")
                        continue
                    inside = above | {(found.st_dev, found.st_ino)}
                    if entry.is_symlink():
                        result.links.append(prefix + name)
                below.append((prefix + name, entry.path, inside))
            else:
                result.warnings.append(f"{prefix}{name}: neither a file nor a folder; left out")
    below.sort()
    return Folder(path, pack_rows(rows), not rows and not below), below


def _stat_of(
    result: Scan, entry: os.DirEntry[str], prefix: str, rules: Optional[FolderRules]
) -> Optional[os.stat_result]:
    """Of what a link leads to; None where it leads nowhere, or where the entry has gone or cannot be read."""
    try:
        found = entry.stat(follow_symlinks=False)
        return os.stat(entry.path) if found.st_mode & _KIND == _LINK else found
    except OSError as error:
        has_gone = isinstance(error, FileNotFoundError) and not entry.is_symlink()
        if has_gone or (rules is not None and rules.match(entry.name, True) is not None):
            return None
        shown = f"{prefix}{entry.name}"
        if isinstance(error, FileNotFoundError):
            result.warnings.append(f"{shown}: the link leads nowhere; left out")
        elif error.errno in (errno.ELOOP, errno.ENOTDIR):
            result.warnings.append(f"{shown}: {error.strerror}; left out")
        elif (failure := failing_disk(error, entry.path)) is not None:
            raise failure from error
        else:
            # In a folder that may be listed but not entered, say: left out it would count as deleted.
            result.unreadable.append(f"{shown}: {error.strerror}")
        return None


def _ancestors(known: frozenset[tuple[int, int]], root: Path, path: str) -> frozenset[tuple[int, int]]:
    """Device and inode of every folder from that of the file system down to `path`."""
    found = set(known)
    current = Path(os.path.realpath(root))
    down = [*reversed(current.parents), current]
    for part in path.split("/") if path else []:
        current = current / part
        down.append(current)
    for folder in down:
        try:
            at = folder.stat()
        except OSError:
            break
        found.add((at.st_dev, at.st_ino))
    return frozenset(found)


@functools.lru_cache(maxsize=1)
def _system_devices() -> frozenset[int]:
    """What holds no files of anyone: reading /proc/kcore would never end."""
    found = set()
    for folder in ("/proc", "/sys", "/dev"):
        with suppress(OSError):
            if os.path.ismount(folder):
                found.add(os.stat(folder).st_dev)
    return frozenset(found)


def _rules_here(rules: Optional[IgnoreRules], path: str, full: str) -> Optional[FolderRules]:
    """The rules that hold in this folder, its own ignore files included."""
    if rules is None:
        return None
    return rules.enter(path, [name for name in rules.file_names if os.path.lexists(f"{full}/{name}")])
