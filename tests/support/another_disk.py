"""A folder of another file system than that of a test's own folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def another_disk(than: Path) -> Iterator[Path]:
    """Skips the test where this machine has one file system."""
    device = than.stat().st_dev
    for folder in ("/dev/shm", "/var/tmp"):
        if Path(folder).is_dir() and Path(folder).stat().st_dev != device:
            with tempfile.TemporaryDirectory(dir=folder) as made:
                yield Path(made)
            return
    pytest.skip("this machine has one file system")
