"""Read the stat data of one ordinary folder as fast as Python can; also a program that does so for another process.

Ordinary: nothing but files and folders, no ignore file. Everything else is left to `scan.py`. The program is
started with the bare interpreter and nothing of this package: it answers each request (a marshalled list of
folders) with the marshalled list of what `read_plain_folder` says of them.
"""

from __future__ import annotations

import marshal
import os
import sys
from operator import attrgetter

_FIELDS = attrgetter("st_mode", "st_size", "st_mtime_ns", "st_ino", "st_ctime_ns")
_KIND = 0o170000
_REGULAR = 0o100000
_FOLDER = 0o040000
_ONLY_FILES = {_REGULAR}
_ORDINARY = {_REGULAR, _FOLDER}


def read_plain_folder(path: str, careful_names: tuple[str, ...]) -> tuple[bytes, list[str]] | None:
    """Marshalled (names, stat fields) of the files in it, and the names of the folders; None: it is not ordinary.

    `careful_names` are names, or beginnings of names, that make a folder not ordinary. Raises OSError.
    """
    with os.scandir(path) as found:
        entries = list(found)
    try:
        stats = [_FIELDS(entry.stat(follow_symlinks=False)) for entry in entries]
    except FileNotFoundError:
        return None
    names = [entry.name for entry in entries]
    folders: list[str] = []
    kinds = {fields[0] & _KIND for fields in stats}
    if not kinds <= _ORDINARY or any(name.startswith(careful_names) for name in names if name[0] == "."):
        return None
    if not kinds <= _ONLY_FILES:
        folders = [name for name, fields in zip(names, stats) if fields[0] & _KIND == _FOLDER]
        names, stats = (
            [name for name, fields in zip(names, stats) if fields[0] & _KIND == _REGULAR],
            [fields for fields in stats if fields[0] & _KIND == _REGULAR],
        )
    # Version 2 knows no references between objects: equal rows give equal bytes.
    return marshal.dumps((names, stats), 2), folders


def _answer(path: str, careful_names: tuple[str, ...]) -> tuple[bytes, list[str]] | None:
    try:
        return read_plain_folder(path, careful_names)
    except OSError:
        return None


def _serve() -> None:
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            careful_names, paths = marshal.load(requests)
        except EOFError:
            return
        marshal.dump([_answer(path, careful_names) for path in paths], answers, 2)
        answers.flush()


if __name__ == "__main__":
    _serve()
