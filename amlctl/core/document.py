"""JSON documents that others have written: parsed within bounds, and each value taken with its type.

All that is wrong with one is a ValueError that says what; the reader names the key, and what repairs it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import xxhash

from amlctl.core.content_id import is_content_id
from amlctl.errors import SettingsError

MOST_BYTES = 256 << 20
"""Largest document, unpacked. An index of a run with a million outputs has 120 MB."""
MOST_NUMBER = (1 << 63) - 1
_GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 31
_PIECE_BYTES = 64 << 10
_Word = TypeVar("_Word", bound=str)


def parse(data: bytes) -> Any:
    """JSON. Raises ValueError also for what Python takes beyond it, and for what is nested too deep."""
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has {len(data)} bytes")
    try:
        return json.loads(data, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def gunzip(data: bytes, most_bytes: int = MOST_BYTES) -> bytes:
    """What is packed in it, which has at most so many bytes. Raises ValueError."""
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    try:
        unpacked = unpacker.decompress(data, most_bytes + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(unpacked) > most_bytes:
        raise ValueError(f"it unpacks to more than {most_bytes} bytes")
    if not unpacker.eof:
        raise ValueError("it is cut short")
    if unpacker.unused_data:
        raise ValueError("something follows it")
    return unpacked


def first_line(data: bytes) -> bytes:
    """The first line of what is packed in it; the rest is not unpacked. Raises ValueError."""
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    line = b""
    try:
        while b"\n" not in line and not unpacker.eof and len(line) < MOST_BYTES:
            piece = unpacker.decompress(data, _PIECE_BYTES)
            if not piece and not unpacker.unconsumed_tail:
                break
            line, data = line + piece, unpacker.unconsumed_tail
    except zlib.error as error:
        raise ValueError(str(error)) from error
    return line.partition(b"\n")[0] + b"\n"


def parse_maybe_packed(data: bytes) -> Any:
    return parse(gunzip(data) if data.startswith(_GZIP) else data)


class Fields:
    """The members of a JSON object, each with its type. All methods raise ValueError."""

    def __init__(self, document: object) -> None:
        if not isinstance(document, Mapping):
            raise ValueError("it is not an object")
        self._document = document

    def __contains__(self, name: str) -> bool:
        return name in self._document

    def _get(self, name: str, default: object) -> object:
        found = self._document.get(name, default)
        if found is _NEEDED:
            raise ValueError(f"{name!r} is missing")
        return found

    def text(self, name: str, default: object = None) -> str:
        value = self._get(name, _NEEDED if default is None else default)
        if not isinstance(value, str):
            raise ValueError(f"{name!r} must be a string")
        return value

    def require_check(self) -> None:
        """The member `check` is that of all others."""
        rest = {name: value for name, value in self._document.items() if name != "check"}
        if self._document.get("check") != check_of(rest):
            raise ValueError("its check does not match")

    def has_text(self, name: str) -> bool:
        """Whether it is a string that is not empty; null counts as missing."""
        value = self._document.get(name)
        return isinstance(value, str) and value != ""

    def number(self, name: str, *, least: int = 0, most: int = MOST_NUMBER) -> int:
        return checked_number(self._get(name, _NEEDED), name, least=least, most=most)

    def format(self, newest: int, what: str) -> int:
        """The member `format`. Raises SettingsError: `what` has a newer one."""
        number = self.number("format", least=1)
        if number > newest:
            message = f"{what} has format {number}; this amlctl reads format {newest}"
            raise SettingsError(message, hint="pip install --upgrade amlctl")
        return number

    def content_id(self, name: str) -> str:
        value = self.text(name)
        if not is_content_id(value):
            raise ValueError(f"{name!r} must be 32 hex digits")
        return value

    def array(self, name: str, default: object = None) -> Sequence[Any]:
        value = self._get(name, _NEEDED if default is None else default)
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name!r} must be a list")
        return value

    def member(self, name: str) -> Mapping[str, Any]:
        """An object; empty where it is missing."""
        value = self._get(name, {})
        if not isinstance(value, Mapping):
            raise ValueError(f"{name!r} must be an object")
        return value

    def one_of(self, name: str, values: Sequence[_Word]) -> _Word:
        value = self.text(name)
        for one in values:
            if value == one:
                return one
        raise ValueError(f"{name!r} must be one of {', '.join(values)}")


def check_of(document: Mapping[str, Any]) -> str:
    """xxh3-64 of a JSON object, whatever the order of its members: shows that one of them was damaged."""
    return xxhash.xxh3_64_hexdigest(json.dumps(document, sort_keys=True).encode())


_NEEDED = object()


def checked_number(value: object, name: str, *, least: int = 0, most: int = MOST_NUMBER) -> int:
    if type(value) is not int or not least <= value <= most:  # True is an int to isinstance
        raise ValueError(f"{name!r} must be a whole number from {least} to {most}")
    return value
