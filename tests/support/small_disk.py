"""A disk that is soon full: some memory, mounted where only one process and its children see it."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import pytest

_MOUNT = 'mount -t tmpfs -o "size=$2k" small "$1" && cd "$1" && shift 2 && exec "$@"'
_NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _MOUNT, "sh"]


def on_small_disk(folder: Path, size_kb: int, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script (its arguments are `arguments`) in `folder`, which is an empty disk of that size meanwhile.

    Skips the test where a user may mount nothing.
    """
    folder.mkdir(exist_ok=True)
    if not _can_mount(folder):
        pytest.skip("a user may mount no disk here (unshare --user --mount)")
    return _run(folder, size_kb, ["sh", "-eu", "-c", script, "sh", *arguments])


@functools.cache
def _can_mount(folder: Path) -> bool:
    try:
        return _run(folder, 100, ["true"]).returncode == 0
    except FileNotFoundError:
        return False


def _run(folder: Path, size_kb: int, command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_NAMESPACE, str(folder), str(size_kb), *command], capture_output=True, text=True, check=False, timeout=120
    )
