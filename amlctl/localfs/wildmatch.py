"""Git's wildcard patterns as regular expressions (gitignore(5), and `wildmatch.c` where that page is silent).

Git compares bytes, so `?` is one byte and `é` two. Here both sides are *byte text*: each byte as the
character of the same number. A name of ASCII characters is its own byte text, which is the usual, free case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Optional

_NEVER = "(?!)"
_GLOB_SPECIAL = "*?[\\"

_DIGITS = set(range(0x30, 0x3A))
_UPPER = set(range(0x41, 0x5B))
_LOWER = set(range(0x61, 0x7B))
_CLASSES: dict[str, set[int]] = {
    "alnum": _DIGITS | _UPPER | _LOWER,
    "alpha": _UPPER | _LOWER,
    "blank": {0x20, 0x09},
    "cntrl": {*range(0x20), 0x7F},
    "digit": _DIGITS,
    "graph": set(range(0x21, 0x7F)),
    "lower": _LOWER,
    "print": set(range(0x20, 0x7F)),
    "punct": set(range(0x21, 0x7F)) - _DIGITS - _UPPER - _LOWER,
    "space": {0x20, 0x09, 0x0A, 0x0D},  # Git's own isspace: no vertical tab, no form feed
    "upper": _UPPER,
    "xdigit": _DIGITS | set(range(0x41, 0x47)) | set(range(0x61, 0x67)),
}


def byte_text(name: str) -> str:
    """`name` (with surrogate escapes for bytes that are no UTF-8) as byte text."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("latin-1")


def name_regex(pattern: str) -> str:
    """The regular expression of a pattern without a slash, for a bare name. Both are byte text."""
    return _translate(pattern, len(pattern), crosses_slash=True)


def path_regex(pattern: str) -> str:
    """The regular expression of a pattern with slashes, for a path relative to the ignore file's folder."""
    pattern = pattern[1:] if pattern.startswith("/") else pattern
    # Git compares the part without wildcards by itself and hands the rest on, so that in `a**/b` the
    # two stars stand at a beginning, and are special although no slash precedes them.
    literal = next((at for at, char in enumerate(pattern) if char in _GLOB_SPECIAL), len(pattern))
    return re.escape(pattern[:literal]) + _translate(pattern[literal:], len(pattern) - literal, crosses_slash=False)


def any_of(expressions: Iterable[str]) -> Optional[re.Pattern[str]]:
    """One expression that matches where any of them does, None where there are none."""
    joined = "|".join(expressions)
    return re.compile(joined, re.DOTALL) if joined else None


def _translate(pattern: str, end: int, *, crosses_slash: bool) -> str:
    """`crosses_slash`: the pattern is for a bare name, in which no slash occurs, so that any `*` takes all."""
    parts: list[str] = []
    at = 0
    while at < end:
        char = pattern[at]
        if char == "*":
            first = at
            while at < end and pattern[at] == "*":
                at += 1
            parts.append(_stars(pattern, first, at, crosses_slash))
            if parts[-1] == _ANY_FOLDERS:
                at += 1
            continue
        at += 1
        if char == "?":
            parts.append("." if crosses_slash else "[^/]")
        elif char == "[":
            members, at = _bracket(pattern, at)
            parts.append(_one_of(members, crosses_slash))
        elif char == "\\":
            # A backslash at the end escapes nothing: such a pattern never matches.
            parts.append(re.escape(pattern[at]) if at < end else _NEVER)
            at += 1
        else:
            parts.append(re.escape(char))
    return "".join(parts)


_ANY_FOLDERS = "(?:.*/)?"


def _stars(pattern: str, first: int, after: int, crosses_slash: bool) -> str:
    """What the stars at `first:after` match; `_ANY_FOLDERS` takes the slash that follows as well."""
    if crosses_slash:
        return ".*"
    stands_alone = (first == 0 or pattern[first - 1] == "/") and (
        after == len(pattern) or pattern[after] == "/" or pattern[after : after + 2] == "\\/"
    )
    if after - first == 1 or not stands_alone:
        return "[^/]*"
    return _ANY_FOLDERS if pattern[after : after + 1] == "/" else ".*"


def _bracket(pattern: str, at: int) -> tuple[Optional[set[int]], int]:
    """The bytes that the bracket expression beginning after its `[` takes, and where it ends.

    None: the expression is malformed, and Git lets the pattern match nothing.
    """
    is_negated = pattern[at : at + 1] in ("!", "^")
    at += is_negated
    members: set[int] = set()
    previous: Optional[int] = None
    is_first = True
    while is_first or pattern[at : at + 1] != "]":
        is_first = False
        if at >= len(pattern):
            return None, len(pattern)
        char = pattern[at]
        if char == "\\":
            at += 1
            if at >= len(pattern):
                return None, len(pattern)
            previous = ord(pattern[at])
            members.add(previous)
        elif char == "-" and previous is not None and pattern[at + 1 : at + 2] not in ("", "]"):
            at += 1
            if pattern[at] == "\\":
                at += 1
                if at >= len(pattern):
                    return None, len(pattern)
            members.update(range(previous, ord(pattern[at]) + 1))
            previous = None
        elif pattern[at : at + 2] == "[:" and "]" not in pattern[at + 2 :]:
            return None, len(pattern)
        elif pattern[at : at + 2] == "[:" and pattern[at + 2 : pattern.index("]", at + 2)].endswith(":"):
            close = pattern.index("]", at + 2)
            named = _CLASSES.get(pattern[at + 2 : close - 1])
            if named is None:
                return None, len(pattern)
            members |= named
            previous = None
            at = close
        else:
            previous = ord(char)
            members.add(previous)
        at += 1
    return (set(range(256)) - members if is_negated else members), at + 1


def _one_of(members: Optional[set[int]], crosses_slash: bool) -> str:
    if members is not None and not crosses_slash:
        members = members - {ord("/")}
    if not members:
        return _NEVER
    return "[" + "".join(f"\\x{member:02x}" for member in sorted(members)) + "]"
