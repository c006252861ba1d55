"""A sample of `python -m tests.simulator.real_process`: real commands, harmed at some of their writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to know which file a descriptor is")
@pytest.mark.parametrize(
    ("cases", "start", "every"),
    [
        (("sync-first", "gc"), 3, 43),
        (("sync-edit", "pull-update", "restore", "fetch", "fetch-logs"), 5, 31),
        (("init",), 1, 9),
        (("submit",), 11, 97),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_a_harmed_command_loses_nothing(cases: tuple[str, ...], start: int, every: int) -> None:
    chosen = [*(word for case in cases for word in ("--case", case)), "--start", str(start), "--every", str(every)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulator.real_process", "--kinds", "kill,torn,ENOSPC,EIO", *chosen],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
