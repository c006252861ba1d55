"""Git's wildcard patterns as regular expressions (gitignore(5), and `wildmatch.c` where that page is silent).

Git compares bytes, so `?` is one byte and `é` two. Here both sides are *byte text*: each byte as the
character of the same number. A name of ASCII characters is its own byte text, which is the usual, free case.

`path_filter` is for the plainer patterns of `--include`.
"""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Callable, NamedTuple, Optional

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
    """`name` (with surrogate escapes for bytes that are not UTF-8) as byte text."""
    return name if name.isascii() else name.encode("utf-8", "surrogateescape").decode("latin-1")


def name_regex(pattern: str) -> str:
    """The regular expression of a pattern without a slash, for a bare name. Both are byte text."""
    return _expression(_tokens(pattern, crosses_slash=True), crosses_slash=True)


def path_regex(pattern: str) -> str:
    """The regular expression of a pattern with slashes, for a path relative to the ignore file's folder."""
    pattern = pattern[1:] if pattern.startswith("/") else pattern
    # Git compares the part without wildcards by itself and hands the rest on, so that in `a**/b` the
    # two stars stand at a beginning, and are special although no slash precedes them.
    literal = next((at for at, char in enumerate(pattern) if char in _GLOB_SPECIAL), len(pattern))
    rest = _tokens(pattern[literal:], crosses_slash=False)
    return re.escape(pattern[:literal]) + _expression(rest, crosses_slash=False)


def any_of(expressions: Iterable[str]) -> Optional[re.Pattern[str]]:
    """One expression that matches where any of them does, None without any."""
    joined = "|".join(expressions)
    return re.compile(joined, re.DOTALL) if joined else None


_STAR = "*"
_ANYTHING = "**"
_ANY_FOLDERS = "**/"


class _Token(NamedTuple):
    """`gap` is the kind of stars, or empty for one byte, for which `expression` stands."""

    gap: str
    expression: str = ""


def _tokens(pattern: str, *, crosses_slash: bool) -> list[_Token]:
    """`crosses_slash`: the pattern is for a bare name, in which no slash occurs, so that any `*` takes all."""
    tokens: list[_Token] = []
    at, end = 0, len(pattern)
    while at < end:
        char = pattern[at]
        if char == "*":
            first = at
            while at < end and pattern[at] == "*":
                at += 1
            gap = _STAR if crosses_slash else _gap(pattern, first, at)
            at += gap == _ANY_FOLDERS
            tokens.append(_Token(gap))
            continue
        at += 1
        if char == "?":
            expression = "." if crosses_slash else "[^/]"
        elif char == "[":
            members, at = _bracket(pattern, at)
            expression = _one_of(members, crosses_slash)
        elif char == "\\":
            # A backslash at the end escapes nothing: such a pattern never matches.
            expression = re.escape(pattern[at]) if at < end else _NEVER
            at += 1
        else:
            expression = re.escape(char)
        tokens.append(_Token("", expression))
    return tokens


def _gap(pattern: str, first: int, after: int) -> str:
    """What the stars at `first:after` stand for; `_ANY_FOLDERS` takes the slash that follows as well."""
    stands_alone = (first == 0 or pattern[first - 1] == "/") and (
        after == len(pattern) or pattern[after] == "/" or pattern[after : after + 2] == "\\/"
    )
    if after - first == 1 or not stands_alone:
        return _STAR
    return _ANY_FOLDERS if pattern[after : after + 1] == "/" else _ANYTHING


def _expression(tokens: Sequence[_Token], *, crosses_slash: bool) -> str:
    """The tokens as a regular expression that needs no more than some passes over the text.

    With many `.*` in one expression every way to share the text among them is tried, which for five stars and a name
    of 200 bytes takes hours. But the first end that is found for what follows a gap is always as good as a later one:
    it leaves more to the next gap. So each such piece is matched once and never tried again (an atomic group). That
    holds for the bytes between two single stars, which stay inside one folder, and for the whole part between two
    double stars, which has a fixed number of slashes, so that an earlier beginning is an earlier end.

    Two gaps are left to plain greed, which is a fifth faster on the names of a large dataset.
    """
    one = ".*" if crosses_slash else "[^/]*"
    pieces = _split(tokens, (_ANYTHING, _ANY_FOLDERS))
    stars = sum(token.gap == _STAR for token in tokens[:-1])
    is_greedy = stars <= _FEW if len(pieces) == 1 else len(pieces) - 1 + stars <= _FEW
    parts: list[str] = []
    for position, (gap, piece) in enumerate(pieces):
        is_last = position == len(pieces) - 1
        chunks = ["".join(token.expression for token in chunk) for _, chunk in _split(piece, (_STAR,))]
        part = chunks[0]
        for at, chunk in enumerate(chunks[1:], 2):
            # Before the end of the whole pattern the last gap takes what is left.
            is_end = at == len(chunks) and (is_last or not chunk)
            part += f"{one}{chunk}" if is_greedy or is_end else _once(f"{one}?{chunk}")
        if is_greedy or is_last:
            parts.append({"": "", _ANYTHING: ".*", _ANY_FOLDERS: "(?:.*/)?"}[gap] + part)
        else:
            parts.append(_once({_ANYTHING: ".*?", _ANY_FOLDERS: "(?:.*?/)??"}[gap] + part) if gap else part)
    return "".join(parts)


_FEW = 2


def _split(tokens: Sequence[_Token], gaps: Collection[str]) -> list[tuple[str, list[_Token]]]:
    """The tokens between gaps of these kinds, each led by the gap before it (empty for the first)."""
    pieces: list[tuple[str, list[_Token]]] = [("", [])]
    for token in tokens:
        if token.gap in gaps:
            pieces.append((token.gap, []))
        else:
            pieces[-1][1].append(token)
    return pieces


_group = itertools.count()


def _once(expression: str) -> str:
    """An atomic group; before Python 3.11 a lookahead, which is one too, and what it has found."""
    if sys.version_info >= (3, 11):
        return f"(?>{expression})"
    name = f"once{next(_group)}"  # patterns are joined, so a name must be the only one of its kind
    return f"(?=(?P<{name}>{expression}))(?P={name})"


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
        elif pattern[at : at + 2] == "[:" and (close := pattern.find("]", at + 2)) < 0:
            return None, len(pattern)
        elif pattern[at : at + 2] == "[:" and close > at + 2 and pattern[close - 1] == ":":
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


def path_filter(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a relative path matches one of the globs; without patterns every path does.

    `*` also spans folders (`*.png` is every picture), `**/` may be empty, and a folder means all below it.
    """
    if not patterns:
        return lambda path: True
    wanted = [pattern.removeprefix("./").rstrip("/") for pattern in patterns]

    def matches(path: str) -> bool:
        return any(
            fnmatchcase(path, pattern)
            or fnmatchcase(path, pattern.replace("**/", ""))
            or fnmatchcase(path, f"{pattern}/*")
            for pattern in wanted
        )

    return matches
