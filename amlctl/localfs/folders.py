"""Folders of any depth, walked, made and removed. What the standard library has for that recurses (before Python 3.12),
and a script may leave folders a thousand deep."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Union


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


def make_folders(path: Union[str, Path], mode: int = 0o777) -> None:
    """With all that are missing above it. Raises OSError; FileExistsError where it is a file."""
    missing = [os.fspath(path)]
    while missing:
        try:
            os.mkdir(missing[-1], mode)
        except FileExistsError:
            if not _is_folder(missing[-1]):
                raise
        except FileNotFoundError:
            above = os.path.dirname(missing[-1])
            if above in ("", missing[-1]):
                raise
            missing.append(above)
            continue
        missing.pop()


def _is_folder(path: str) -> bool:
    """Unlike `os.path.isdir` it does not take a failing disk for a file. Raises OSError."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:  # a link that leads nowhere
        return False


def remove_tree(top: Union[str, Path], *, ignore_errors: bool = False) -> None:
    """A link is removed, not what it leads to. Raises OSError, after all that can be removed is gone."""
    failures: list[OSError] = []
    made: list[str] = []
    if os.path.islink(top):
        os.unlink(top)
        return
    for folder, _, names in walk(top):
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


def remove_empty_folders(top: Path) -> None:
    """With all folders below it. Raises OSError where one of them holds a file."""
    for found in reversed([found for found, _, _ in walk(top)]):
        os.rmdir(found)
