"""A control group (cgroup v2) for the processes of a run, where this user may make one: no process can leave it.

What it adds to `runtime.process_tree`: its processes are found even when the runtime and the supervisor were both
killed. It limits nothing. `<run's folder>/cgroup` names it, from before it is made.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from amlctl.core.content_id import content_id
from amlctl.localfs.atomic import write_bytes
from amlctl.workspaces.local.places import RunPlaces

_MARK = "amlctl-"
_LOOK_S = 0.01
_LIMIT_S = 10.0


class RunCgroup:
    """One that exists, or existed; every method does nothing where it does not."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, pid: int) -> None:
        """With all that it starts from now on."""
        with contextlib.suppress(OSError):
            (self._folder / "cgroup.procs").write_text(str(pid))

    def end(self) -> int:
        """Kill all that is in it and remove it; how many there were."""
        killed: set[str] = set()
        deadline = time.monotonic() + _LIMIT_S
        with contextlib.suppress(OSError):
            while time.monotonic() < deadline:
                present = (self._folder / "cgroup.procs").read_text().split()
                if not present:
                    break
                killed.update(present)
                self._kill(present)
                time.sleep(_LOOK_S)
            self._folder.rmdir()
        return len(killed)

    def _kill(self, pids: list[str]) -> None:
        try:
            (self._folder / "cgroup.kill").write_text("1")
        except FileNotFoundError:  # before Linux 5.14
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)


def make_cgroup(places: RunPlaces) -> RunCgroup | None:
    """Below that of this process; None where that cannot be."""
    above = _own_folder()
    if above is None or not os.access(above, os.W_OK):
        return None
    folder = above / f"{_MARK}{content_id(os.fsencode(places.folder))}"
    try:
        write_bytes(places.cgroup, f"{folder}\n".encode())
        folder.mkdir(exist_ok=True)
    except OSError:
        return None
    return RunCgroup(folder)


def find_cgroup(places: RunPlaces) -> RunCgroup | None:
    """That of a run whose supervisor is dead."""
    try:
        folder = Path(places.cgroup.read_text().strip())
    except (OSError, ValueError):
        return None
    return RunCgroup(folder) if folder.name.startswith(_MARK) and folder.is_absolute() else None


def _own_folder() -> Path | None:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return None
    path = next((line[3:] for line in lines if line.startswith("0::")), None)
    root = next((fields[1] for fields in mounts if fields[2] == "cgroup2"), None)
    return None if path is None or root is None else Path(root, path.lstrip("/"))
