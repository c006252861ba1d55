"""One unpacked runtime for the projects of a test process.

A project unpacks and compiles the runtime with its first local run, which takes longer than most scripts of tests.
"""

from __future__ import annotations

from pathlib import Path

RUNTIMES = "runtimes"


def share_runtime(state_dir: Path) -> None:
    """For a project that has no runs yet."""
    shared = Path.home() / ".cache/amlctl-tests" / RUNTIMES
    shared.mkdir(parents=True, exist_ok=True)
    state_dir.mkdir(exist_ok=True)
    (state_dir / RUNTIMES).symlink_to(shared)


def own_runtime(state_dir: Path) -> Path:
    """Undo it: the folder in which this project unpacks its own."""
    (state_dir / RUNTIMES).unlink()
    return state_dir / RUNTIMES
