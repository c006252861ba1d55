"""A program for `WarmCommand`: fetches a run and ends, without a word, before its N-th change of a file.

Arguments: PROJECT RUN N
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from amlctl.operations.fetch import fetch
from tests.support.bench import open_bench

DIED = 9
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.utime", "os.truncate", "shutil.copyfile")


def die_at(number: int, root: Path) -> None:
    """At the N-th change below `root`, or file that is opened there to be written."""
    left = number

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        is_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event not in _CHANGES and not is_write:
            return
        if not any(isinstance(one, (str, Path)) and str(one).startswith(str(root)) for one in arguments):
            return
        left -= 1
        if left == 0:
            os._exit(DIED)

    sys.addaudithook(hook)


def main() -> None:
    bench = open_bench(Path(sys.argv[1]))
    die_at(int(sys.argv[3]), bench.project.root)
    fetch(bench, sys.argv[2])
