"""A disk that ignores case and the Unicode form of names and keeps how they were written, as that of a Mac does.

`install` replaces functions of `os` in this process: of what lies below a folder, each part of a path that is not there
stands for one that differs in nothing else.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ONE_PATH = ("stat", "lstat", "open", "unlink", "remove", "rmdir", "mkdir", "chmod", "utime", "readlink", "scandir")
_TWO_PATHS = ("rename", "replace", "link")


def install(root: Path, replace: Callable[[Any, str, Any], object]) -> None:
    """`replace` is that of `monkeypatch`: setattr."""
    top, lstat, listdir, unlink = os.path.realpath(root), os.lstat, os.listdir, os.unlink

    def found(path: Any, folder: int | None) -> tuple[Any, int | None]:
        """The path of what is there, else as it was given."""
        if isinstance(path, int):
            return path, folder
        text = os.fsdecode(path)
        if not os.path.isabs(text):
            text = os.path.join(os.readlink(f"/proc/self/fd/{folder}") if folder is not None else os.getcwd(), text)
        if not text.startswith(f"{top}/"):
            return path, folder
        at = top
        for part in filter(None, text[len(top) :].split("/")):
            try:
                lstat(f"{at}/{part}")
            except OSError:
                names = listdir(at) if os.path.isdir(at) else []
                part = next((name for name in names if _folded(name) == _folded(part)), part)
            at = f"{at}/{part}"
        return at, None

    def one(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any = ".", *arguments: Any, dir_fd: int | None = None, **named: Any) -> Any:
            path, dir_fd = found(path, dir_fd)
            return real(path, *arguments, **named, **({} if dir_fd is None else {"dir_fd": dir_fd}))

        return call

    def two(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(
            old: Any, new: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None, **named: Any
        ) -> Any:
            before, src_dir_fd = found(old, src_dir_fd)
            after, dst_dir_fd = found(new, dst_dir_fd)
            if dst_dir_fd is None and real.__name__ != "link" and os.path.basename(after) != os.path.basename(new):
                if before != after:
                    unlink(after)
                after = os.path.join(os.path.dirname(after), os.path.basename(new))
            folders = {"src_dir_fd": src_dir_fd, "dst_dir_fd": dst_dir_fd}
            return real(before, after, **named, **{key: value for key, value in folders.items() if value is not None})

        return call

    kinds = [(name, one) for name in _ONE_PATH] + [(name, two) for name in _TWO_PATHS]
    calls = {name: wrap(getattr(os, name)) for name, wrap in kinds}
    for name, call in calls.items():
        replace(os, name, call)
    for name in ("supports_dir_fd", "supports_fd", "supports_follow_symlinks"):
        replace(os, name, {*getattr(os, name), *calls.values()})


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
