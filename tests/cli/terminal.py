"""A real terminal (a pty) with a command in it."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

LIMIT_S = 60


class Terminal:
    """Runs `command` with stdin, stdout and stderr on a pty that is its controlling terminal, so that Ctrl-C works."""

    def __init__(
        self, command: Sequence[str], cwd: Path, *, columns: int = 80, variables: Mapping[str, str] | None = None
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, "TERM": "xterm-256color", **(variables or {})},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.text = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> None:
        """Read until `text` has appeared."""
        deadline = time.monotonic() + LIMIT_S
        while text not in self.text:
            assert time.monotonic() < deadline, self.text
            if not self._read(0.2):
                raise AssertionError(f"ended without {text!r}: {self.text}")

    def pieces(self) -> Iterator[str]:
        """What appears, as it appears, to the end."""
        seen = len(self.text)
        while self._read(0.05):
            if len(self.text) > seen:
                yield self.text[seen:]
                seen = len(self.text)

    def finish(self) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + LIMIT_S
        while self._read(0.2):
            assert time.monotonic() < deadline, self.text
        return self._process.wait(LIMIT_S)

    def hang_up(self) -> int:
        """The terminal goes away, as when its window is closed; the exit code of the command."""
        os.close(self._master)
        self._master = -1
        return self._process.wait(LIMIT_S)

    def close(self) -> None:
        """The terminal goes away, and a command that a failed test left in it."""
        if self._master >= 0:
            os.close(self._master)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(LIMIT_S)

    def _read(self, timeout_s: float) -> bool:
        """Take in what is there; False once the other side is closed."""
        ready, _, _ = select.select([self._master], [], [], timeout_s)
        if not ready:
            return self._process.poll() is None
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux: the other side is closed
            return False
        self.text += self._decoder.decode(data)  # a read may end inside a character
        return bool(data)
