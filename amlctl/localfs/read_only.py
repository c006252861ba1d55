"""The local state of a project that cannot be written: a copy for one command."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from amlctl.localfs.project import Project


@contextmanager
def copied_state(project: Project, names: Sequence[str]) -> Iterator[Path]:
    """A temporary folder with those files of `.amlctl/` that can be read, each with its journals."""
    with tempfile.TemporaryDirectory(prefix="amlctl-state-") as folder:
        for name in names:
            for suffix in ("", "-wal", "-journal"):
                with suppress(OSError):
                    shutil.copyfile(project.state_dir / f"{name}{suffix}", Path(folder, f"{name}{suffix}"))
        yield Path(folder)
