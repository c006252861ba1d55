"""What the end of a script's log says about its failure, and the files that a traceback names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from amlctl.core.import_names import package_of

_MISSING = re.compile(r"^ModuleNotFoundError: No module named '([\w.]+)'\s*$")
_NO_FILE = re.compile(r"^FileNotFoundError: .*: (['\"])(.+)\1\s*$")
_EXCEPTION = re.compile(r"^([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning)): ?(.*)$")
_LONGEST_REASON = 200


class Explained(NamedTuple):
    """Why a script failed, in its own words, and the package or the file that it lacks; all may be empty."""

    reason: str = ""
    package: str = ""
    file: str = ""


def explained(lines: Sequence[str]) -> Explained:
    """From the last lines of the log, without colors."""
    for line in reversed(lines):
        missing = _MISSING.match(line)
        if missing is not None:
            module = missing[1]  # `a.b`: there is an `a`, so it is not about a package
            return Explained(line.strip(), "" if "." in module else package_of(module))
        if _EXCEPTION.match(line):
            no_file = _NO_FILE.match(line)
            return Explained(line.strip()[:_LONGEST_REASON], file=no_file[2] if no_file else "")
    return Explained()


_FILE = re.compile(r'File "([^"\n]*/pipeline/([^"\n]+))"')
_OPENED = 'File "'
_LONGEST_PATH = 5000


class CodePaths:
    """Paths in tracebacks lead to the code here, not to a container that is gone. Incremental: a path may be cut.

    `find` gets the path and what of it is below `pipeline/`; returns where that is here, or empty.
    """

    def __init__(self, find: Callable[[str, str], str]) -> None:
        self._find = find
        self._held = ""

    def feed(self, text: str, *, is_final: bool = False) -> str:
        text, self._held = self._held + text, ""
        at = text.rfind(_OPENED)
        rest = text[at + len(_OPENED) :] if at >= 0 else '"'
        if not is_final and '"' not in rest and "\n" not in rest and len(rest) < _LONGEST_PATH:
            text, self._held = text[:at], text[at:]
        elif not is_final:
            begun = next((n for n in range(len(_OPENED) - 1, 0, -1) if text.endswith(_OPENED[:n])), 0)
            text, self._held = text[: len(text) - begun], text[len(text) - begun :]
        return _FILE.sub(self._replaced, text) if "/pipeline/" in text else text

    def _replaced(self, found: re.Match[str]) -> str:
        return f'File "{self._find(found[1], found[2]) or found[1]}"'
