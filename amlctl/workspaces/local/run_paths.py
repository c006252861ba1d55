"""The files of a local run on this disk: `.amlctl/runs/<id>/` (the record), `.amlctl/local/<id>/` (everything else)."""

from __future__ import annotations

import errno
import fcntl
import os
from functools import lru_cache
from pathlib import Path
from typing import Optional
from urllib.parse import quote

from amlctl.errors import AmlctlError, ServiceUnavailable
from amlctl.localfs.atomic import temporary_near
from amlctl.localfs.disk_errors import disk_error, is_refusal
from amlctl.localfs.folders import make_private_folder, remove_tree
from amlctl.localfs.regular_file import open_regular, regular_descriptor
from amlctl.runtime.script import NodeFolders


class RunPaths:
    def __init__(self, state_dir: Path, run: str) -> None:
        self.state_dir, self.run = state_dir, run
        self.record_dir = state_dir / "runs" / run
        self.record = self.record_dir / "record.json"
        """The working copy of the record; only the holder of `lock` writes it."""
        self.folder = state_dir / "local" / run
        self.lock = self.folder / "supervisor.lock"
        """Locked (flock) from before the run is recorded until its record is final."""
        self.sweep_lock = self.folder / "sweep.lock"
        """Of a sweep: locked until its first runs are started."""
        self.supervisor = self.folder / "supervisor.json"
        """ProcessIdentity of the supervisor, which leads the session of all of the run's processes, the number
        (inode) of the lock that it holds, and the run's folder as it was then."""
        self.cgroup = self.folder / "cgroup"
        """Text: the control group of the run's processes, where it has one."""
        self.reserve = self.folder / "reserve"
        """A file that is deleted before the final record is written, so that a full disk has room for it."""
        self.cancel_request = self.folder / "cancel"
        """Its existence asks the supervisor to end the run."""
        self.ending = self.folder / "ending.json"
        """How the run ends once its store has its results, which could not be saved at its end: see `ending`."""
        self.log = self.log_of(0)
        """Everything that the run's first process writes, byte for byte, in order; and lines of our own."""
        self.container = self.container_of(0)
        """Of the first node."""

    def log_of(self, rank: int) -> Path:
        return self.folder / (f"log-{rank}" if rank else "log")

    def collapsed_log_of(self, rank: int) -> Path:
        return self.folder / (f"std_log-{rank}.txt" if rank else "std_log.txt")

    def container_of(self, node: int) -> Path:
        return self.folder / (f"container-{node}" if node else "container")

    def data_copy(self, number: int) -> Path:
        """Where a copy of a dataset is while it is moved into a container or out of it."""
        return self.folder / f"data-{number}"

    def node_folders(self, node: int) -> NodeFolders:
        container = self.container_of(node)
        return NodeFolders(container, container / "outputs")


paths_of = lru_cache(1 << 14)(RunPaths)
"""The same, for those who look at many runs again and again."""


def queue_folder(state_dir: Path, compute: str) -> Path:
    return state_dir / "queue" / quote(compute, safe="")


def make_folder(paths: RunPaths, lock: Path) -> Optional[int]:
    """The run's folder, which appears with `lock` in it, held: where that is free, its holder is dead. Gives its
    descriptor, or None where the folder is there already. Raises OSError."""
    if paths.folder.exists():
        return None  # a cancel of a run that fills the disk needs no room
    hidden = temporary_near(paths.folder)
    make_private_folder(hidden)
    descriptor = _new_lock(hidden / lock.name)
    try:
        make_private_folder(paths.folder.parent)
        os.rename(hidden, paths.folder)
        return descriptor
    except OSError as error:
        os.close(descriptor)
        remove_tree(hidden, ignore_errors=True)
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) and not is_refusal(error):
            raise
    try:
        make_private_folder(paths.folder, exist_ok=False)  # on a mount that renames no folder
    except FileExistsError:
        return None
    return _new_lock(lock)


def _new_lock(path: Path) -> int:
    descriptor = regular_descriptor(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


_RESERVE_BYTES = 128 << 10
"""For two copies of the record, the last lines of the log, and their folders."""


def make_reserve(paths: RunPaths) -> None:
    """Raises OSError."""
    with open_regular(paths.reserve, "wb") as file:
        file.write(os.urandom(_RESERVE_BYTES))  # some file systems store zeros in no space


def release_reserve(paths: RunPaths) -> None:
    """Before the final record is written; can be repeated."""
    paths.reserve.unlink(missing_ok=True)


def machine_error(paths: RunPaths, error: OSError) -> AmlctlError:
    """The error of a run that this machine, mostly its disk, has failed."""
    known = disk_error(error, f"run {paths.run}, in {paths.folder}")
    return known or ServiceUnavailable(f"this machine failed the run: {error}")
