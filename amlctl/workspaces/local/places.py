"""Where a local run keeps its files: `.amlctl/runs/<id>/` (the record) and `.amlctl/local/<id>/` (all else)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from amlctl.runtime.script import NodeFolders


@dataclass(frozen=True)
class RunPlaces:
    state_dir: Path
    run: str

    @property
    def record_dir(self) -> Path:
        return self.state_dir / "runs" / self.run

    @property
    def record(self) -> Path:
        """The working copy of the record; only the holder of `lock` writes it."""
        return self.record_dir / "record.json"

    @property
    def folder(self) -> Path:
        return self.state_dir / "local" / self.run

    @property
    def lock(self) -> Path:
        """Locked (flock) from before the run is known to anybody until its record is final."""
        return self.folder / "supervisor.lock"

    @property
    def supervisor(self) -> Path:
        """ProcessIdentity of the supervisor, which leads the session of all of the run's processes."""
        return self.folder / "supervisor.json"

    @property
    def cgroup(self) -> Path:
        """Text: the control group of the run's processes, where it has one."""
        return self.folder / "cgroup"

    @property
    def reserve(self) -> Path:
        """Room on this disk that is kept for the end of the run; see `reserve`."""
        return self.folder / "reserve"

    @property
    def cancel_request(self) -> Path:
        """Its existence asks the supervisor to end the run."""
        return self.folder / "cancel"

    @property
    def log(self) -> Path:
        """Everything that the run's first process writes, byte for byte, in order; and what we have to say."""
        return self.log_of(0)

    def log_of(self, rank: int) -> Path:
        return self.folder / (f"log-{rank}" if rank else "log")

    def collapsed_log_of(self, rank: int) -> Path:
        return self.folder / (f"std_log-{rank}.txt" if rank else "std_log.txt")

    @property
    def container(self) -> Path:
        """Of the first node."""
        return self.container_of(0)

    def container_of(self, node: int) -> Path:
        return self.folder / (f"container-{node}" if node else "container")

    def node_folders(self, node: int) -> NodeFolders:
        container = self.container_of(node)
        return NodeFolders(container, container / "outputs")


def queue_folder(state_dir: Path, compute: str) -> Path:
    return state_dir / "queue" / quote(compute, safe="")
