"""Who is making an environment: a file beside the attempt's folder, with an owner and an expiry.

The lock of an environment is free again when its holder dies. The mark tells the rest: whether a holder that does not
come forward still works (it renews the mark), which tool of a dead one still writes, and which folders are leftovers.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from amlctl.errors import SettingsError
from amlctl.localfs.atomic import read_json, write_json
from amlctl.workspaces.local.processes import ProcessIdentity, identity_of, is_alive

EXPIRES_S = 120.0
"""A mark that was not renewed for so long is that of a machine that was switched off, or of a suspended process."""
_RENEW_S = 20.0
_SUFFIX = ".making"


class Mark:
    """Of one attempt; used by one thread."""

    def __init__(self, home: Path) -> None:
        self._path = home.with_name(home.name + _SUFFIX)
        self._tool: ProcessIdentity | None = None
        self._renewed_at_s = 0.0

    def renew(self, *, is_forced: bool = False) -> None:
        """Called often; writes now and then. A full disk is told by the tool that meets it, too."""
        now_s = time.monotonic()
        if not is_forced and now_s - self._renewed_at_s < _RENEW_S:
            return
        self._renewed_at_s = now_s
        owner = identity_of(os.getpid())
        document = {
            "host": platform.node(),
            "owner": None if owner is None else owner.to_json(),
            "tool": None if self._tool is None else self._tool.to_json(),
            "expires_at": time.time() + EXPIRES_S,
        }
        with contextlib.suppress(OSError):
            write_json(self._path, document)

    def tool_started(self, pid: int) -> None:
        self._tool = identity_of(pid)
        self.renew(is_forced=True)

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def is_being_made(place: Path) -> bool:
    """Whether the maker of an attempt in `place` is alive and has shown it lately."""
    return any(_is_in_force(mark) for mark in place.glob(f"*{_SUFFIX}"))


def remove_leftovers(place: Path) -> None:
    """The attempts of makers that are gone; a tool that such a one has left behind is ended first."""
    for mark in place.glob(f"*{_SUFFIX}"):
        if not _is_in_force(mark):
            _end_tool(mark)
            shutil.rmtree(mark.with_name(mark.name.removesuffix(_SUFFIX)), ignore_errors=True)
            mark.unlink(missing_ok=True)


def _is_in_force(mark: Path) -> bool:
    document = _read(mark)
    owner = _identity(document.get("owner"))
    if owner is not None and document.get("host") == platform.node() and not is_alive(owner):
        return False
    expires_at = document.get("expires_at")
    # A clock that was set back must not keep a mark in force for long.
    return isinstance(expires_at, (int, float)) and 0 < expires_at - time.time() <= EXPIRES_S


def _end_tool(mark: Path) -> None:
    document = _read(mark)
    tool = _identity(document.get("tool"))
    owner = _identity(document.get("owner"))
    is_orphan = owner is not None and document.get("host") == platform.node() and not is_alive(owner)
    if tool is not None and is_orphan and is_alive(tool):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(tool.pid, signal.SIGKILL)  # tools are started as leaders of a process group


def _identity(document: Any) -> ProcessIdentity | None:
    try:
        return ProcessIdentity.from_json(document)
    except (KeyError, TypeError, ValueError):
        return None


def _read(mark: Path) -> dict[str, Any]:
    try:
        document = read_json(mark)
    except (OSError, SettingsError):
        return {}
    return document if isinstance(document, dict) else {}
