"""Colour, where it is wanted. Nothing is ever said by colour alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from amlctl.cli.render.tables import printable

_OWN_CODES = re.compile("(\x1b\\[(?:0|1|2|32|33|36|1;31)m)")


class Style(NamedTuple):
    """Wraps text in ANSI codes, or leaves it alone."""

    is_coloured: bool

    def _wrap(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.is_coloured and text else text

    def safe(self, line: str) -> str:
        """The line with no control character in it but these codes; what came into it from outside is shown as text.
        Every line that amlctl writes goes through this."""
        if line.isprintable():
            return line
        if not self.is_coloured:
            return printable(line)
        parts = _OWN_CODES.split(line)
        return "".join(part if at % 2 else printable(part) for at, part in enumerate(parts))

    def bold(self, text: str) -> str:
        return self._wrap("1", text)

    def dim(self, text: str) -> str:
        return self._wrap("2", text)

    def good(self, text: str) -> str:
        return self._wrap("32", text)

    def bad(self, text: str) -> str:
        return self._wrap("1;31", text)

    def warning(self, text: str) -> str:
        return self._wrap("33", text)

    def name(self, text: str) -> str:
        return self._wrap("36", text)


def wants_colour(variables: Mapping[str, str], *, is_terminal: bool, is_colourless: bool) -> bool:
    """Whether a stream gets colour: a terminal, unless `--no-color`, NO_COLOR or TERM=dumb say no."""
    return is_terminal and not is_colourless and not variables.get("NO_COLOR") and is_capable(variables)


def is_capable(variables: Mapping[str, str]) -> bool:
    """Whether the terminal understands control sequences at all."""
    return variables.get("TERM", "") not in ("dumb", "unknown")
