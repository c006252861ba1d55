"""Files that appear whole or not at all: written under a temporary name, then renamed.

A temporary name says which process writes it: `.amlctl-tmp-<machine>-<process>-<start>-<number>`. What a killed process
of this machine has left is removed by the next command that comes by (`remove_left_behind`); a file of a process that
is alive is never removed, and one whose writer cannot be judged from here (another machine) only after a day.

Temporary files stand beside the target; those of a project's own state, however deep their targets, in `.amlctl`
itself, where each command finds them by reading one folder (`temporary_near`).

Mounts of object storage, FUSE and network shares may lack modes, times, syncing, links or renames. A refusal of the
operation itself (`is_refusal`) is passed over, or replaced by the next best; what a disk or missing rights refuse is
raised.
"""

from __future__ import annotations

import errno
import functools
import itertools
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Callable, Optional, Union

from amlctl.errors import SettingsError
from amlctl.localfs.disk_errors import UnfitFile, is_refusal
from amlctl.localfs.folders import FILE_MODE, STATE_FOLDER, make_folders, make_private_folder, remove_tree
from amlctl.localfs.locks import claimed
from amlctl.localfs.machine import ProcessIdentity, this_process
from amlctl.localfs.regular_file import read_regular

TEMPORARY_PREFIX = ".amlctl-tmp-"
"""Begins every temporary name; listings of a folder skip these."""
STALE_S = 24 * 3600.0
"""Seconds after which a temporary file of an unknown writer counts as left behind."""
_MOST_JSON_BYTES = 256 << 20
"""Of a state file. The largest lists the fetched files of a run: some 100 bytes for each."""
_OWNED = re.compile(r"([0-9a-f]{8})-([0-9]{1,10})-([0-9]{1,20})-[0-9a-z_]+(?:\.moved)?")

_counter = itertools.count()


def temporary_beside(path: Path) -> Path:
    """A fresh name in the folder of `path`, so that the rename stays inside one file system."""
    return path.with_name(temporary_name())


def temporary_near(path: Path) -> Path:
    """A fresh name in the `.amlctl` folder that holds `path`; outside of one, beside it."""
    state_dir = next((folder for folder in path.parents if folder.name == STATE_FOLDER), path.parent)
    return state_dir / temporary_name()


def remove_at_once(folder: Path) -> None:
    """Remove a tree of an `.amlctl` folder, as far as that is possible. A removal that is killed leaves nothing under
    its name: what is left is for `Project.tidy_state`."""
    doomed = temporary_near(folder)
    try:
        folder.rename(doomed)
    except OSError:
        doomed = folder  # on a mount that renames no folder
    remove_tree(doomed, ignore_errors=True)


@contextmanager
def scratch_folder(parent: Optional[Path] = None) -> Iterator[Path]:
    """A new private folder in `parent` (default: the system's temporary folder), which is removed at the end.

    There, what killed processes have left is removed first. Raises OSError.
    """
    import tempfile  # here: it costs every command 2 ms

    folder = Path(tempfile.gettempdir()) if parent is None else parent
    remove_left_behind(folder, with_folders=True)
    with tempfile.TemporaryDirectory(prefix=_prefix(os.getpid()), dir=folder) as made:
        yield Path(made)


def temporary_name() -> str:
    """A name that no other process and no other thread uses."""
    return f"{_prefix(os.getpid())}{next(_counter)}"


@functools.lru_cache(maxsize=1)
def _prefix(process: int) -> str:
    writer = this_process()
    return f"{TEMPORARY_PREFIX}{writer.machine}-{writer.process}-{writer.started}-"


def writer_of(name: str) -> Optional[ProcessIdentity]:
    """The process that made the temporary name; None where it does not say, as the partial files of downloads."""
    found = _OWNED.fullmatch(name, len(TEMPORARY_PREFIX))
    return None if found is None else ProcessIdentity(found[1], int(found[2]), int(found[3]))


def remove_left_behind(folder: Path, older_than_s: float = STALE_S, *, with_folders: bool = False) -> int:
    """Remove the temporary files of killed writers from one folder; how many. A missing folder has none.

    `older_than_s` is the age of those whose writer cannot be judged from here. `with_folders`: temporary folders, too.
    """
    removed = 0
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(TEMPORARY_PREFIX):
                with suppress(FileNotFoundError, IsADirectoryError, PermissionError):
                    if _is_left_behind(entry, older_than_s):
                        if with_folders and entry.is_dir(follow_symlinks=False):
                            _remove_own_folder(entry)
                        else:
                            os.unlink(entry.path)
                        removed += 1
    return removed


def _remove_own_folder(entry: os.DirEntry[str]) -> None:
    """One of another user, in the system's temporary folder, could become a link while it is removed."""
    if entry.stat(follow_symlinks=False).st_uid == os.getuid():
        remove_tree(entry.path, ignore_errors=True)


def _is_left_behind(entry: os.DirEntry[str], older_than_s: float) -> bool:
    writer = writer_of(entry.name)
    if writer is not None and writer.machine == this_process().machine:
        return writer.is_gone()
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > older_than_s


def write_bytes(path: Path, data: bytes, *, mode: int = FILE_MODE) -> None:
    """Replace the file's content in one step; makes missing parent folders, as private as `mode`. Raises OSError."""
    try:
        try:
            _write_whole(temporary_near(path), path, data, mode)
        except FileNotFoundError:
            if mode == FILE_MODE:
                make_private_folder(path.parent)
            else:
                make_folders(path.parent)
            _write_whole(temporary_near(path), path, data, mode)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write_whole(temporary: Path, path: Path, data: bytes, mode: int) -> None:
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
        move(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError) or error.errno != errno.EXDEV or temporary.parent == path.parent:
            raise
        # A folder of `.amlctl` is on another disk.
        _write_whole(temporary_beside(path), path, data, mode)


def sync_folder(folder: Path) -> None:
    """The names in the folder are on the disk. A file system that cannot do that is left alone."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, document: object) -> None:
    """`document` as indented JSON, in one step."""
    write_bytes(path, (json.dumps(document, indent=2, ensure_ascii=True) + "\n").encode())


def read_json(path: Path) -> Any:
    """Raises OSError, and SettingsError where the file is not JSON."""
    try:
        return json.loads(read_regular(path, _MOST_JSON_BYTES))
    except UnfitFile as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is not JSON: {error}") from error


def kept_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where it is missing, damaged or not an object."""
    try:
        found = read_json(path)
    except (OSError, SettingsError):
        return {}
    return found if isinstance(found, dict) else {}


_PART_BYTES = 1 << 20
_REPLACE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
AnyPath = Union[str, Path]


def keeps_modes(path: Path) -> bool:
    """Whether a file on that disk can be other than executable: not on a Windows drive in WSL, on exFAT, or on most SMB
    shares. True where that cannot be tried."""
    probe = (path if path.is_dir() else path.parent) / temporary_name()
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            return os.stat(probe).st_mode & 0o100 == 0
        finally:
            os.unlink(probe)
    except OSError:
        return True


def set_mode(file: Union[int, AnyPath], mode: int) -> None:
    """Raises OSError where the disk fails."""
    _unless_refused(lambda: os.chmod(file, mode))


def set_mtime(file: Union[int, AnyPath], mtime_ns: int) -> None:
    """Raises OSError where the disk fails."""
    _unless_refused(lambda: os.utime(file, ns=(mtime_ns, mtime_ns)))


def sync_to_disk(descriptor: int) -> None:
    """Raises OSError where the disk fails."""
    _unless_refused(lambda: os.fsync(descriptor))


def link_to(path: Path, target: Path) -> bool:
    """Make a symbolic link; False where the file system has none. Raises OSError."""
    try:
        path.symlink_to(target)
    except OSError as error:
        if not is_refusal(error):
            raise
        return False
    return True


def move(source: AnyPath, target: AnyPath) -> None:
    """Rename, replacing what is there. On a file system without renames the bytes are written in place, one writer at a
    time, and read back; a reader may meet a part of them, and a kill leaves it. Raises OSError."""
    try:
        os.replace(source, target)
    except OSError as error:
        if not is_refusal(error) or os.path.isdir(target) or _has_renames(source):
            raise
        with claimed(Path(target)):
            _write_in_place(source, target)


def move_if_new(source: AnyPath, target: AnyPath) -> bool:
    """False where the target exists. A hard link, or, without them, a move while the target is claimed."""
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError as error:
        if not is_refusal(error):
            raise
        with claimed(Path(target)):
            if os.path.lexists(target):
                return False
            try:
                os.replace(source, target)
            except OSError as refusal:
                if not is_refusal(refusal) or _has_renames(source):
                    raise
                _write_in_place(source, target)
    return True


def _has_renames(source: AnyPath) -> bool:
    """Whether the refusal of a rename concerned its target alone: missing rights, say."""
    moved = f"{os.fspath(source)}.moved"
    try:
        os.replace(source, moved)
    except OSError:
        return False
    os.replace(moved, source)
    return True


def _write_in_place(source: AnyPath, target: AnyPath) -> None:
    mode = os.stat(source).st_mode & 0o777
    with suppress(FileNotFoundError):
        seen = os.lstat(target)
        if stat.S_ISLNK(seen.st_mode) or seen.st_nlink > 1:
            os.unlink(target)  # what it leads to, or shares its bytes with, is not what is replaced
        elif not seen.st_mode & stat.S_IWUSR:
            set_mode(target, mode | stat.S_IWUSR)
    _overwrite(source, target, mode)
    set_mode(target, mode)
    os.unlink(source)


def _overwrite(source: AnyPath, target: AnyPath, mode: int) -> None:
    """The beginning of an old, longer value is never left as one that looks whole: the new length comes last."""
    with open(source, "rb") as reader, os.fdopen(os.open(target, _REPLACE, mode), "r+b") as writer:
        shutil.copyfileobj(reader, writer, _PART_BYTES)
        writer.truncate()
        writer.flush()
        sync_to_disk(writer.fileno())
    with open(source, "rb") as reader, open(target, "rb") as written:
        part = b"more"
        while part:
            part = reader.read(_PART_BYTES)
            if written.read(_PART_BYTES) != part:
                raise OSError(errno.EIO, "what was written is not what is read back", os.fspath(target))


def _unless_refused(call: Callable[[], object]) -> None:
    try:
        call()
    except OSError as error:
        if not is_refusal(error):
            raise
