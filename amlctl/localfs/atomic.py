"""Files that appear whole or not at all: written under a temporary name, then renamed.

A temporary name says which process writes it: `.amlctl-tmp-<machine>-<process>-<start>-<number>`. What a killed process
of this machine has left is removed by the next command that comes by (`remove_left_behind`); a file of a process that
is alive is never removed, and one whose writer cannot be judged from here (another machine) only after a day.

Temporary files stand beside the target; those of a project's own state, however deep their targets, in `.amlctl`
itself, where each command finds them by reading one folder (`temporary_near`).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from amlctl.errors import SettingsError
from amlctl.localfs.disk_errors import UnfitFile
from amlctl.localfs.file_ops import move
from amlctl.localfs.folders import FILE_MODE, make_folders, make_private_folder, remove_tree
from amlctl.localfs.machine import ProcessIdentity, this_process
from amlctl.localfs.regular_file import read_regular

STATE_FOLDER = ".amlctl"
"""Of a project: caches, local runs, local store."""
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


@contextlib.contextmanager
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
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(TEMPORARY_PREFIX):
                with contextlib.suppress(FileNotFoundError, IsADirectoryError, PermissionError):
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
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError) or error.errno != errno.EXDEV or temporary.parent == path.parent:
            raise
        # A folder of `.amlctl` is on another disk.
        _write_whole(temporary_beside(path), path, data, mode)


def sync_folder(folder: Path) -> None:
    """The names in the folder are on the disk. A file system that cannot do that is left alone."""
    with contextlib.suppress(OSError):
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
