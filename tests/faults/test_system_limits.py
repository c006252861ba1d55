"""Limits of the process, for real: what is used up is named, with what raises it, and never blamed on the data."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from amlctl.operations.init import init

FILES = 40


@pytest.fixture
def project(tmp_path: Path) -> Path:
    init(tmp_path)
    folder = tmp_path / "data_blobs/raw/d"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"f{number}").write_bytes(os.urandom(2_000))
    (folder / "large").write_bytes(os.urandom(3 << 20))
    return tmp_path


def limited(
    project: Path, limit: Callable[[], None], *arguments: str, program: str = "from amlctl.cli.app import main; main()"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=project,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def soft(kind: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


@pytest.mark.parametrize("most", [7, 10, 14, 24])
def test_too_many_open_files(project: Path, most: int) -> None:
    done = limited(project, soft(resource.RLIMIT_NOFILE, most), "sync", "raw/d")
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 6), done.stderr
    if done.returncode:
        assert "too many open files" in done.stderr
        assert "ulimit -n" in done.stderr
    assert limited(project, lambda: None, "sync", "raw/d").returncode == 0


def test_a_limit_of_file_sizes(project: Path) -> None:
    done = limited(project, soft(resource.RLIMIT_FSIZE, 1 << 20), "sync", "raw/d")
    assert (done.returncode, "Traceback" in done.stderr) == (6, False), done.stderr
    assert "the file is larger than allowed" in done.stderr
    assert "ulimit -f" in done.stderr
    assert limited(project, lambda: None, "sync", "raw/d").returncode == 0


def test_no_more_threads(project: Path) -> None:
    """Stacks of a gigabyte in an address space of few: the limit on processes does not bind root."""
    program = "import threading; threading.stack_size(1 << 30)\nfrom amlctl.cli.app import main; main()"
    done = limited(project, soft(resource.RLIMIT_AS, 1 << 30), "sync", "raw/d", program=program)
    assert (done.returncode, "Traceback" in done.stderr) == (6, False), done.stderr
    assert "no more threads or processes allowed" in done.stderr
    assert limited(project, lambda: None, "sync", "raw/d").returncode == 0
