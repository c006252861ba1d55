"""One unpacked runtime for the projects and jobs of a test process.

A project unpacks and compiles the runtime with its first local run, and a job compiles it with each start, which takes
longer than most scripts of tests.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

RUNTIMES = "runtimes"


def share_runtime(state_dir: Path) -> None:
    """For a project that has no runs yet."""
    shared = _folder() / RUNTIMES
    shared.mkdir(exist_ok=True)
    state_dir.mkdir(exist_ok=True)
    (state_dir / RUNTIMES).symlink_to(shared)


def own_runtime(state_dir: Path) -> Path:
    """Undo it: the folder in which this project unpacks its own."""
    (state_dir / RUNTIMES).unlink()
    return state_dir / RUNTIMES


def unpack_shared(archive: Path) -> None:
    """Put a folder in the place of a zip of modules: what Python compiles there stays for all that have its bytes."""
    folder = _folder() / hashlib.sha256(archive.read_bytes()).hexdigest()
    if not folder.is_dir():
        unpacked = Path(tempfile.mkdtemp(dir=folder.parent))
        shutil.unpack_archive(archive, unpacked, "zip")
        with suppress(OSError):  # another job of this moment has unpacked it
            unpacked.rename(folder)
    archive.unlink()
    archive.symlink_to(folder)


def _folder() -> Path:
    made = Path.home() / ".cache/amlctl-tests"
    made.mkdir(parents=True, exist_ok=True)
    return made
