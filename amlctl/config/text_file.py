"""Text and TOML files, with errors that name file and line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

from amlctl.errors import AmlctlError, NotFound, RightsError, SettingsError
from amlctl.localfs.disk_errors import UnfitFile, disk_error
from amlctl.localfs.regular_file import open_regular

MAX_BYTES = 4 << 20
"""Of a settings, job, compute or environment file; a larger one is something else."""


def read_bytes(path: Path, shown: str, *, hint: str = "", limit: int = MAX_BYTES) -> bytes:
    """`shown` names the file in errors, `hint` is for a missing one.

    Raises NotFound, RightsError, SettingsError (not a file, or larger than `limit`).
    """
    try:
        with open_regular(path) as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise NotFound(f"{shown} not found", hint=hint) from None
    except OSError as error:
        raise file_error(error, path, shown) from error
    if len(data) > limit:
        raise SettingsError(
            f"{shown} has more than {limit >> 20} MiB", hint="put large content into pipeline/ or data_blobs/"
        )
    return data


def read_text(path: Path, shown: str, *, hint: str = "") -> str:
    """UTF-8, without a byte-order mark. Raises what `read_bytes` raises, and SettingsError (not UTF-8)."""
    try:
        return read_bytes(path, shown, hint=hint).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{shown} is not UTF-8 text (byte {error.start})", hint="save it as UTF-8") from error


def file_error(error: OSError, path: Path, shown: str) -> AmlctlError:
    """Why a file or folder, named `shown`, cannot be read."""
    if isinstance(error, UnfitFile):
        return SettingsError(f"cannot read {shown}: {error.strerror}", hint=f"move {path} away")
    hint = f"check the rights of {path}"
    found = disk_error(error, f"cannot read {shown}", rights_hint=hint)
    return found or RightsError(f"cannot read {shown}: {error.strerror}", hint=hint)


FIX_LINE = "fix that line and run the command again"
Key = tuple[str, ...]
Place = tuple[Union[str, int], ...]
"""The keys and list positions that lead to a value."""

_PART = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED = rf"{_PART}(?:\s*\.\s*{_PART})*"
_HEADER = re.compile(rf"\s*\[\[?\s*({_DOTTED})\s*\]")
_ASSIGNMENT = re.compile(rf"\s*({_DOTTED})\s*=\s*(.*)")
_PLACE = re.compile(r"\s*\(at line (\d+), column (\d+)\)|\s*\(at end of document\)")


@dataclass(frozen=True)
class TextDocument:
    """Plain values (mappings have strings as keys) of a YAML or TOML text; `source` names the file in errors."""

    source: str
    value: Any
    lines: Mapping[Place, int]

    def error(self, message: str, *path: str | int, hint: str = "") -> SettingsError:
        """An error with the line of that value, or of the nearest one above it."""
        return SettingsError(f"{self.where(*path)}: {message}", hint=hint or FIX_LINE)

    def where(self, *path: str | int) -> str:
        """`file:line` of that value, or of the nearest one above it."""
        while path not in self.lines and path:
            path = path[:-1]
        return f"{self.source}:{self.lines.get(path, 1)}"

    def value_at(self, *path: str | int) -> Any:
        """Raises KeyError."""
        value = self.value
        for key in path:
            value = value[key]
        return value

    def below(self, *path: str | int) -> TextDocument:
        """The value as a document of its own, with its lines. Raises KeyError."""
        value, depth = self.value_at(*path), len(path)
        lines = {at[depth:]: line for at, line in self.lines.items() if at[:depth] == path}
        return TextDocument(self.source, value, lines)


def parse_toml(text: str, source: str, *, first_line: int = 1, first_column: int = 1) -> TextDocument:
    """`text` begins at that line and column of `source`. Raises SettingsError naming `source` and the line."""
    try:
        return TextDocument(source, tomllib.loads(text), dict(_lines(text, first_line)))
    except RecursionError as error:
        raise SettingsError(f"{source}:{first_line}: invalid TOML: nested too deep", hint="write it flatter") from error
    except ValueError as error:  # a TOMLDecodeError, or for a number of 5,000 digits one without a line
        found = _PLACE.search(str(error))
        line = int(found[1]) if found and found[1] else max(1, len(text.splitlines()))
        line += first_line - 1
        column = f":{int(found[2]) + first_column - 1}" if found and found[2] else ""
        raise SettingsError(
            f"{source}:{line}{column}: invalid TOML: {_PLACE.sub('', str(error))}",
            hint="TOML is: key = value, with strings in double quotes, below a [section]",
        ) from error


def _lines(text: str, first_line: int) -> Iterator[tuple[Place, int]]:
    """The line of each section and key, which tomllib does not return. `text` is valid TOML."""
    section: Key = ()
    open_text = ""
    for number, line in enumerate(text.splitlines(), first_line):
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
