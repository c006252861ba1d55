"""Programs for which file modes count, also where the tests run as root."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest

ROOT_READS_ALL = pytest.mark.skipif(sys.platform != "linux" and os.geteuid() == 0, reason="root reads everything here")


def run_without_root_rights(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        preexec_fn=_drop if sys.platform == "linux" else None,
        capture_output=True,
        text=True,
        check=False,
    )


def _drop() -> None:
    """Even root then has to obey file modes (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH)."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):
        libc.prctl(24, capability, 0, 0, 0)
