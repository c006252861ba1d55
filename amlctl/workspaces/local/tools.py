"""A tool such as pip or conda as a child process: its output line by line while it works, and its end."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_KEPT_LINES = 40
_LOOK_S = 0.2
"""How often `check` is asked while the tool is silent."""


class ToolFailed(Exception):
    """`last_lines` of what the tool said, blank ones left out."""

    def __init__(self, exit_code: int, last_lines: Sequence[str]) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code
        self.last_lines = tuple(last_lines)


def run_tool(
    command: Sequence[str],
    *,
    variables: Mapping[str, str],
    cwd: Path,
    tell: Callable[[str], None],
    check: Callable[[], None],
    started: Callable[[int], None] = lambda pid: None,
) -> None:
    """Run it to its end. `check` is called now and then; what it raises ends the tool and is raised. `started` gets the
    number of its process, which leads a process group.

    Raises ToolFailed, OSError (not to be started).
    """
    lines: queue.Queue[str | None] = queue.Queue()
    kept: deque[str] = deque(maxlen=_KEPT_LINES)
    with subprocess.Popen(
        list(command),
        cwd=cwd,
        env=dict(variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,
    ) as process:
        reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
        reader.start()
        try:
            started(process.pid)
            while True:
                check()
                try:
                    line = lines.get(timeout=_LOOK_S)
                except queue.Empty:
                    continue
                if line is None:
                    break
                if line.strip():
                    kept.append(line)
                    tell(line)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        exit_code = process.wait()
        reader.join()
    if exit_code != 0:
        raise ToolFailed(exit_code, kept)


def _read(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    for line in process.stdout or ():
        lines.put(line.rstrip())
    lines.put(None)
