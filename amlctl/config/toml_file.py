"""TOML documents that remember the line of every section and key, so that an error can say where."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from amlctl.errors import SettingsError

Key = tuple[str, ...]

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"\s*\[\[?\s*({_DOTTED})\s*\]")
_ASSIGNMENT = re.compile(rf"\s*({_DOTTED})\s*=\s*(.*)")
_PLACE = re.compile(r"\s*\(at line (\d+), column (\d+)\)|\s*\(at end of document\)")


@dataclass(frozen=True)
class TomlDocument:
    """`source` names the file in errors."""

    source: str
    values: Mapping[str, Any]
    lines: Mapping[Key, int]

    def place(self, key: Key) -> str:
        """`file:line` of that key, or of the section that holds it."""
        while key and key not in self.lines:
            key = key[:-1]
        return f"{self.source}:{self.lines.get(key, 1)}"


def parse_toml(text: str, source: str) -> TomlDocument:
    """Raises SettingsError naming `source` and the line."""
    try:
        return TomlDocument(source, tomllib.loads(text), dict(_lines(text)))
    except RecursionError as error:
        raise SettingsError(f"{source}: invalid TOML: nested too deep", hint="write it flatter") from error
    except ValueError as error:  # a TOMLDecodeError, or that of a number of 5,000 digits, which has no line
        found = _PLACE.search(str(error))
        at_end = max(1, len(text.splitlines()))
        line = int(found[1]) if found and found[1] else at_end
        column = f":{found[2]}" if found and found[2] else ""
        raise SettingsError(
            f"{source}:{line}{column}: invalid TOML: {_PLACE.sub('', str(error))}",
            hint="TOML is: key = value, with texts in double quotes, below a [section]",
        ) from error


def _lines(text: str) -> Iterator[tuple[Key, int]]:
    """The line of each section and key: tomllib does not tell. `text` is TOML already known to be right."""
    section: Key = ()
    open_text = ""
    for number, line in enumerate(text.splitlines(), 1):
        if open_text:
            open_text = "" if open_text in line else open_text
            continue
        if header := _HEADER.match(line):
            section = _parts(header[1])
            yield section, number
        elif assignment := _ASSIGNMENT.match(line):
            yield (*section, *_parts(assignment[1])), number
            opening = assignment[2][:3]
            if opening in ('"""', "'''") and assignment[2].count(opening) == 1:
                open_text = opening


def _parts(dotted: str) -> Key:
    return tuple(part[1:-1] if part[0] in "\"'" else part for part in re.findall(_PART, dotted))
