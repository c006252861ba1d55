"""Where a local run keeps its files: `.amlctl/runs/<id>/` (the record) and `.amlctl/local/<id>/` (all else)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote


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
    def cancel_request(self) -> Path:
        """Its existence asks the supervisor to end the run."""
        return self.folder / "cancel"

    @property
    def log(self) -> Path:
        """Everything that the run's processes write, byte for byte, in order."""
        return self.folder / "log"

    @property
    def collapsed_log(self) -> Path:
        return self.folder / "std_log.txt"

    @property
    def container(self) -> Path:
        return self.folder / "container"

    @property
    def outputs_dir(self) -> Path:
        return self.container / "outputs"


def queue_folder(state_dir: Path, compute: str) -> Path:
    return state_dir / "queue" / quote(compute, safe="")
