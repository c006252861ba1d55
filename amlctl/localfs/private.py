"""Files and folders of amlctl's own: for the user alone (0600 and 0700), whatever the umask.

`.amlctl` holds records, logs and arguments of runs, and what others have no business to read is easily among them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from amlctl.localfs.folders import make_folders, walk

FOLDER_MODE, FILE_MODE = 0o700, 0o600
_OTHERS = 0o077


def make_folder(path: Path, *, exist_ok: bool = True) -> None:
    """With all folders above it that are missing. Raises OSError; FileExistsError for a file, or without `exist_ok`."""
    try:
        path.mkdir(FOLDER_MODE)
    except FileNotFoundError:
        make_folders(path.parent, FOLDER_MODE)
        path.mkdir(FOLDER_MODE, exist_ok=exist_ok)
    except FileExistsError:
        if not exist_ok or not path.is_dir():
            raise


def open_file(path: Path, mode: str) -> IO[Any]:
    """As the builtin, for bytes. Raises OSError."""
    return open(path, mode, opener=_private)


def touch(path: Path) -> None:
    """Raises OSError."""
    path.touch(mode=FILE_MODE)


def narrow(folder: Path, but: Path) -> None:
    """Take from others what an earlier version, or a copy, has given them, in `folder` and below, except `but`.

    The folder comes first, and keeps others out of the rest. Where its mode cannot be changed (a file system without
    modes, a folder of somebody else) nothing below is looked at, or every command would do that again.
    """
    _narrow(os.fspath(folder))
    if is_wide(folder):
        return
    for above, names, files in walk(folder):
        if os.path.join(above, but.name) == str(but) and but.name in names:
            names.remove(but.name)
        for name in (*names, *files):
            _narrow(os.path.join(above, name))


def is_wide(path: Path) -> bool:
    """Whether others may enter or read it. A missing one is not."""
    try:
        return bool(path.stat().st_mode & _OTHERS)
    except OSError:
        return False


def _narrow(path: str) -> None:
    with suppress(OSError):  # it has just gone, or belongs to somebody else
        if not os.path.islink(path):
            mode = os.stat(path).st_mode
            if mode & _OTHERS:
                os.chmod(path, mode & 0o7777 & ~_OTHERS)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, FILE_MODE)
