"""A Blob service in memory that costs little: what a client and a link can do when the service is not the limit.

It is a process of its own (`blob_http.py`) that lives as long as its standard input.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ACCOUNT = "devstoreaccount1"


@contextmanager
def running_blob_service() -> Iterator[int]:
    """Its port."""
    command = [sys.executable, str(Path(__file__).with_name("blob_http.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait(timeout=30)
