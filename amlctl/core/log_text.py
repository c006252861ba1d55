"""Logs as a terminal would show them in the end: of a line that was written over, only what came last.

A progress bar writes `\\r` and the line again. A carriage return before a line feed (also several) only ends the
line. Bytes, not text: a log may hold any encoding, and `\\r` and `\\n` are the same byte in all that matter.

A log contains whatever a script, its libraries and its data have written. Unfiltered, it could set the window title,
clear the screen, overwrite other lines, fill the clipboard, or make the terminal type an answer: `TerminalFilter`
leaves text, colors, tabs, carriage returns and line feeds.

The end of a log mostly says why the script failed (`explained`), and tracebacks name files (`CodePaths`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

LONGEST_LINE = 1 << 20
"""Bytes of one line that are held, in case a carriage return comes; of a longer line the beginning stays."""
_PARTS = re.compile(rb"[^\r]*\n|[^\r\n]+|\r")
"""Lines, the beginning of one, and a carriage return."""


class CarriageReturnCollapser:
    """Incremental: how the log is cut into pieces makes no difference. Not thread-safe.

    What a program writes after a lone `\\r` replaces the line from its beginning; a shorter text leaves no rest
    of the longer one, since progress bars pad with blanks and those are all that would be left.
    """

    def __init__(self) -> None:
        self._line = bytearray()
        self._returned = False

    def feed(self, data: bytes) -> bytes:
        """The lines that `data` completes, each with its `\\n`, and the beginning of one that is very long."""
        done = bytearray()
        for part in _PARTS.findall(data):
            if part == b"\r":
                self._returned = True
                continue
            if self._returned and part[:1] != b"\n":
                self._line.clear()
            self._returned = False
            self._line += part
            is_done = part.endswith(b"\n")
            if is_done or len(self._line) > LONGEST_LINE:
                held = 0 if is_done else len(self._line) % LONGEST_LINE
                done += self._line[: len(self._line) - held]
                del self._line[: len(self._line) - held]
        return bytes(done)

    @property
    def pending(self) -> bytes:
        """The line that is not complete yet, as it looks now."""
        return bytes(self._line)

    def flush(self) -> bytes:
        """The last line if no line feed ended it; the collapser is as new afterwards."""
        rest = bytes(self._line)
        self._line.clear()
        self._returned = False
        return rest


def collapsed(parts: Iterable[bytes]) -> Iterator[bytes]:
    """A whole log, piece by piece."""
    collapser = CarriageReturnCollapser()
    for part in parts:
        yield collapser.feed(part)
    yield collapser.flush()


class TailFinder:
    """Where the last `count` lines of a log begin, which is shown piece by piece from its end on.

    A last line without a line feed counts as one.
    """

    def __init__(self, count: int, end: int) -> None:
        """`end` is the offset of the log's end, in bytes."""
        self._left = count
        self._end = end
        self.start = end if count <= 0 else None
        """The answer, once it is known."""

    def feed(self, data: bytes, offset: int) -> None:
        """`data` stands at `offset`, and ends where the piece before it began."""
        # A line feed at the very end begins no line.
        at = len(data) - 1 if offset + len(data) == self._end else len(data)
        while self.start is None:
            at = data.rfind(b"\n", 0, at)
            if at < 0:
                break
            self._left -= 1
            if self._left == 0:
                self.start = offset + at + 1
        if self.start is None and offset == 0:
            self.start = 0


_ESCAPE = "\x1b"
_LONGEST_HELD = 66
"""Characters of a sequence that the next piece may continue: longer than any color that is shown."""
_BIDI = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""Marks that reorder the characters of a line on the terminal."""
_SEQUENCE = re.compile(
    rf"""[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f{_BIDI}]  # the first class alone finds where text ends
    (?: (?:(?<=\x9b) | (?<=\x1b)\[) ([\ -?]*) ([@-~])?  # CSI: colors and the like
      | (?:(?<=[\x90\x98\x9d-\x9f]) | (?<=\x1b)[PX\]^_]) [^\x07\x18\x1a\x1b\x9c\r\n]* ([\x07\x18\x1a\x9c])?
      | (?<=\x1b)[\ -/]* ([0-~])?
      | () )""",
    re.VERBOSE,
)
"""The last group of each alternative is what ends it. The second one is DCS, SOS, OSC, PM, APC: text for the terminal,
up to a terminator or another escape."""
_COLOR = re.compile(r"[0-9;:]{0,63}")
_RESET = re.compile(r"(?:.*;)?0*")


class TerminalFilter:
    """Incremental: the result does not depend on how the log is split into pieces. Not thread-safe.

    Sequences other than colors are dropped; one without an end is dropped up to the end of its line, so that it cannot
    hide the rest of the log. Direction marks are shown as `\\u202e`.
    """

    def __init__(self) -> None:
        self._held = ""
        """A sequence that the next piece may continue."""
        self._is_colored = False

    def feed(self, text: str) -> str:
        """The printable part of `text`, up to an incomplete sequence."""
        text, self._held = self._held + text, ""
        return _SEQUENCE.sub(self._shown, text)

    def end(self) -> str:
        """The sequence that resets the color, if the log has left one on."""
        was_colored, self._is_colored = self._is_colored, False
        return f"{_ESCAPE}[0m" if was_colored else ""

    def _shown(self, found: re.Match[str]) -> str:
        if found.lastindex in (None, 1):  # without an end
            if found.end() == len(found.string):
                self._held = found[0][:_LONGEST_HELD]
        elif found[2] == "m" and _COLOR.fullmatch(found[1]):
            self._is_colored = _RESET.fullmatch(found[1]) is None
            return f"{_ESCAPE}[{found[1]}m"
        elif found[0] > "\x9f":
            return found[0].encode("unicode_escape").decode("ascii")
        return ""


_MISSING = re.compile(r"^ModuleNotFoundError: No module named '([\w.]+)'\s*$")
_NO_FILE = re.compile(r"^FileNotFoundError: .*: (['\"])(.+)\1\s*$")
_EXCEPTION = re.compile(r"^([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning)): ?(.*)$")
_RAISED = re.compile(r"^[A-Za-z_][\w.]*(?::.*)?$")
_TRACEBACK = "Traceback (most recent call last):"
_ARGUMENTS = re.compile(r"^\S+\.py: error: .+")
"""How argparse ends a script."""
_LAST_WORDS = re.compile(r"^Error: .+")
"""How click ends one."""
_LONGEST_REASON = 200


class Explained(NamedTuple):
    """Why a script failed, in its own words, and the module or the file that it lacks; all may be empty."""

    reason: str = ""
    module: str = ""
    file: str = ""


def explained(lines: Sequence[str]) -> Explained:
    """From the last lines of the log, without colors."""
    line = _reason(lines)
    missing, no_file = _MISSING.match(line), _NO_FILE.match(line)
    if missing is not None:
        return Explained(line.strip(), missing[1])
    return Explained(line.strip()[:_LONGEST_REASON], file=no_file[2] if no_file else "")


def _reason(lines: Sequence[str]) -> str:
    """What the last traceback ends with, whatever the name of the exception; where no traceback begins in these lines,
    the last one that looks like an exception."""
    begins = [number for number, line in enumerate(lines) if line.startswith(_TRACEBACK)]
    after = [line for line in lines[begins[-1] + 1 :] if line[:1].strip()] if begins else []
    if after and _RAISED.match(after[0]):
        return after[0]
    if lines and _LAST_WORDS.match(lines[-1]):
        return lines[-1]
    return next((line for line in reversed(lines) if _EXCEPTION.match(line) or _ARGUMENTS.match(line)), "")


_FILE = re.compile(r'File "([^"\n]*/pipeline/([^"\n]+))"')
_BEGUN = re.compile(r'(?:File "[^"\n]{0,4999}|F(?:i(?:l(?:e ?)?)?)?)\Z')
"""A path of which the end may follow."""


class CodePaths:
    """Paths in tracebacks lead to the code here, not to a container that is gone. Incremental: a path may be cut.

    `find` gets the path and what of it is below `pipeline/`; returns where that is here, or empty.
    """

    def __init__(self, find: Callable[[str, str], str]) -> None:
        self._find = find
        self._held = ""

    def feed(self, text: str, *, is_final: bool = False) -> str:
        text, self._held = self._held + text, ""
        begun = None if is_final else _BEGUN.search(text)
        if begun is not None:
            text, self._held = text[: begun.start()], begun[0]
        return _FILE.sub(self._replaced, text) if "/pipeline/" in text else text

    def _replaced(self, found: re.Match[str]) -> str:
        return f'File "{self._find(found[1], found[2]) or found[1]}"'
