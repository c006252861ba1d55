"""Folders of any depth, walked, made and removed; and what is for the user alone.

What the standard library has for folders recurses (before Python 3.12), and a script may leave folders a thousand deep.
Files and folders of amlctl's own are private (0600 and 0700), whatever the umask: `.amlctl` holds records, logs and
arguments of runs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Optional, Union


def walk(top: Union[str, Path]) -> Iterator[tuple[str, list[str], list[str]]]:
    """Each folder with the names of the folders and of all else in it, top down. The caller may remove folders from the
    list. Links are not followed; what cannot be read is passed over."""
    pending = [os.fspath(top)]
    while pending:
        folder = pending.pop()
        folders: list[str] = []
        others: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    (folders if entry.is_dir(follow_symlinks=False) else others).append(entry.name)
        except OSError:
            continue
        yield folder, folders, others
        pending += [f"{folder}/{name}" for name in folders]


_MOST_TRIES = 8
"""To make a folder in one that is there, which others may remove and make again at the same time."""


def make_folders(path: Union[str, Path], mode: int = 0o777) -> None:
    """With all that are missing above it. Raises OSError; FileExistsError where it is a file."""
    missing, tries = [os.fspath(path)], _MOST_TRIES
    while missing:
        try:
            os.mkdir(missing[-1], mode)
        except FileExistsError:
            if not _is_existing_folder(missing[-1]):
                raise
        except FileNotFoundError:
            above = os.path.dirname(missing[-1])
            tries -= os.path.isdir(above)  # it was made in between, or takes no folders, as in /proc
            if above in ("", missing[-1]) or not tries:
                raise
            missing.append(above)
            continue
        missing.pop()


def _is_existing_folder(path: str) -> bool:
    """Unlike `os.path.isdir` it does not take a failing disk for a file. Raises OSError."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:  # a link that leads nowhere
        return False


def remove_tree(top: Union[str, Path], *, ignore_errors: bool = False, opens_closed: bool = True) -> None:
    """A link is removed, not what it leads to. Folders that a script has closed are opened first. Raises OSError, after
    all that can be removed is gone."""
    failures: list[OSError] = []
    made: list[str] = []
    if os.path.islink(top):
        os.unlink(top)
        return
    if opens_closed:
        _open(top)
    for folder, folders, names in walk(top):
        for name in folders if opens_closed else ():
            _open(f"{folder}/{name}")
        made.append(folder)
        for name in names:
            try:
                os.unlink(f"{folder}/{name}")
            except OSError as error:
                failures.append(error)
    for folder in reversed(made):
        try:
            os.rmdir(folder)
        except OSError as error:
            failures.append(error)
    with suppress(FileNotFoundError):
        if not made and os.lstat(top):  # a file, or a folder that cannot be read
            failures.append(NotADirectoryError(f"{top} cannot be removed"))
    if failures and not ignore_errors:
        raise failures[0]


def _open(folder: Union[str, Path]) -> None:
    with suppress(OSError):  # removing it says why
        mode = os.lstat(folder).st_mode
        if stat.S_ISDIR(mode) and mode & FOLDER_MODE != FOLDER_MODE:
            os.chmod(folder, FOLDER_MODE)


def remove_empty_folders(top: Path) -> None:
    """With all folders below it. Raises OSError where one of them holds a file."""
    for found in reversed([found for found, _, _ in walk(top)]):
        os.rmdir(found)


STATE_FOLDER = ".amlctl"
"""Of a project: caches, local runs, local store."""
FOLDER_MODE, FILE_MODE = 0o700, 0o600
_OTHERS = 0o077


def make_private_folder(path: Path, *, exist_ok: bool = True) -> None:
    """With all folders above it that are missing. Raises OSError; FileExistsError for a file, or without `exist_ok`."""
    try:
        path.mkdir(FOLDER_MODE)
    except FileNotFoundError:
        make_folders(path.parent, FOLDER_MODE)
        path.mkdir(FOLDER_MODE, exist_ok=exist_ok)
    except FileExistsError:
        if not exist_ok or not path.is_dir():
            raise


def touch_private(path: Path) -> None:
    """Raises OSError."""
    path.touch(mode=FILE_MODE)


def close_to_others(folder: Path, but: Optional[Path] = None) -> None:
    """Take from others what an earlier version, or a copy, has given them, in `folder` and below, except `but`.

    The folder comes first, and keeps others out of the rest. Where its mode cannot be changed (a file system without
    modes, a folder of somebody else) nothing below is looked at, or every command would do that again.
    """
    _close_to_others(os.fspath(folder))
    if is_open_to_others(folder):
        return
    for above, names, files in walk(folder):
        if but is not None and os.path.join(above, but.name) == str(but) and but.name in names:
            names.remove(but.name)
        for name in (*names, *files):
            _close_to_others(os.path.join(above, name))


def is_open_to_others(path: Path) -> bool:
    """Whether others may enter or read it. A missing one is not."""
    try:
        return bool(path.stat().st_mode & _OTHERS)
    except OSError:
        return False


def _close_to_others(path: str) -> None:
    with suppress(OSError):  # it has just gone, or belongs to somebody else
        if not os.path.islink(path):
            mode = os.stat(path).st_mode
            if mode & _OTHERS:
                os.chmod(path, mode & 0o7777 & ~_OTHERS)
