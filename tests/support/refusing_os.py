"""A mount that does not know some operations: each call of them on what lies below a folder is refused, always.

`install` replaces functions of `os` and `fcntl` in this process. A Python program does the same by itself when its
`PYTHONPATH` begins with `site_folder` and its variables have what `variables` gives.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "chmod": ("chmod", "fchmod", "lchmod"),
    "rename": ("rename", "replace", "renames"),
    "utime": ("utime",),
    "link": ("link",),
    "symlink": ("symlink",),
    "append": (),
    "fsync": ("fsync", "fdatasync"),
    "flock": (),
}
Replace = Callable[[Any, str, Any], object]


def cases() -> list[tuple[str, str]]:
    """Operations, `+` between several of them, each with an error that mounts answer."""
    every = "+".join(OPERATIONS)
    return [
        *((operation, "EPERM") for operation in OPERATIONS),
        ("flock", "ENOLCK"),
        *((every, error) for error in ("EOPNOTSUPP", "ENOSYS", "EINVAL")),
    ]


def install(root: Path, operations: str, error: str, replace: Replace = setattr) -> None:
    """`replace` is `setattr`, or `monkeypatch.setattr`, which takes it back."""
    number = getattr(errno, error)
    wanted = operations.split("+")

    def refuse(path: str) -> None:
        raise OSError(number, os.strerror(number), path)

    def guarded(call: Callable[..., Any]) -> Callable[..., Any]:
        def guard(*arguments: Any, **named: Any) -> Any:
            for argument in arguments[:2]:
                if _is_below(argument, root):
                    refuse(_path(argument))
            return call(*arguments, **named)

        return guard

    for operation in wanted:
        for name in OPERATIONS[operation]:
            if hasattr(os, name):
                replace(os, name, guarded(getattr(os, name)))
    if "flock" in wanted:
        for name in ("flock", "lockf"):
            replace(fcntl, name, guarded(getattr(fcntl, name)))
    if "append" in wanted:
        if not _appends.has_hook:
            sys.addaudithook(_refuse_append)
            _appends.has_hook = True
        replace(_appends, "refused", {**_appends.refused, root: number})


@dataclass
class _Appends:
    """Below which folders no file is opened to append to it, and with which error. One hook for all of them: no hook
    can be removed, and each is called for whatever the process does from then on."""

    refused: Mapping[Path, int] = field(default_factory=dict)
    has_hook: bool = False


_appends = _Appends()


def _refuse_append(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit event of every way to open a file."""
    if event != "open" or not isinstance(arguments[2], int) or not arguments[2] & os.O_APPEND:
        return
    path = arguments[0]
    if isinstance(path, int) or path is None:
        return
    for root, number in _appends.refused.items():
        if _is_below(path, root):
            raise OSError(number, os.strerror(number), os.fsdecode(path))


def _path(argument: Any) -> str:
    if hasattr(argument, "fileno"):
        argument = argument.fileno()
    if isinstance(argument, bool) or not isinstance(argument, (int, str, bytes, os.PathLike)):
        return ""
    if isinstance(argument, int):
        try:
            return os.readlink(f"/proc/self/fd/{argument}")
        except OSError:
            return ""
    return os.path.abspath(os.fsdecode(argument))


def _is_below(argument: Any, root: Path) -> bool:
    path = _path(argument)
    return path == os.fspath(root) or path.startswith(f"{root}/")


_VARIABLE = "TEST_REFUSING_OS"


def site_folder(folder: Path) -> Path:
    """A folder for the front of PYTHONPATH."""
    folder.mkdir(exist_ok=True)
    text = Path(__file__).read_text(encoding="utf-8")
    (folder / "sitecustomize.py").write_text(f"{text}\n_install_from_variables()\n", encoding="utf-8")
    return folder


def variables(root: Path, operations: str, error: str) -> dict[str, str]:
    return {_VARIABLE: f"{operations}:{error}:{root}"}


def _install_from_variables() -> None:
    operations, _, rest = os.environ.get(_VARIABLE, "").partition(":")
    error, _, root = rest.partition(":")
    if root:
        install(Path(root), operations, error)
