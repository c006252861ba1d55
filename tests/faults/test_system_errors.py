"""A sample of `every_system_error`, which has the whole of it as a command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.faults.every_system_error import COMMANDS

SAMPLE = 3
SEED = int(os.environ.get("AMLCTL_TEST_SEED", "1"))


def test_each_error_of_the_system_is_reported_as_what_it_is() -> None:
    options = ["--sample", str(SAMPLE), "--seed", str(SEED)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.every_system_error", *options],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SAMPLE * len(COMMANDS)} points, 0 failed" in done.stdout


def test_the_command_sees_a_failure(tmp_path: Path) -> None:
    """The sample above would pass as well if nothing were injected."""
    script = (
        "import os, sys; from tests.support.faulty_os import FaultyOs\n"
        "FaultyOs(sys.argv[1], 1, 5).install()\n"
        "os.mkdir(sys.argv[1] + '/a'); os.mkdir(sys.argv[1] + '/b')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "OSError: [Errno 5] Input/output error" in done.stderr
