"""Patterns as regular expressions: the same answers as Git's own matcher written down plainly, in linear time."""

from __future__ import annotations

import functools
import re
import string
import sys
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amlctl.localfs.wildmatch import name_regex, path_regex


def plainly(pattern: str, text: str, *, is_path: bool) -> bool:
    """`dowild` of Git's `wildmatch.c` without its short cuts; each pair of positions is looked at once."""
    start = 0
    if is_path:
        pattern = pattern.removeprefix("/")
        start = next((at for at, char in enumerate(pattern) if char in "*?[\\"), len(pattern))
        if text[:start] != pattern[:start]:
            return False

    @functools.cache
    def matches(at: int, here: int) -> bool:
        if at == len(pattern):
            return here == len(text)
        char = pattern[at]
        if char == "*":
            after = at
            while after < len(pattern) and pattern[after] == "*":
                after += 1
            follows = pattern[after : after + 1]
            is_double = after - at > 1 and (at == start or pattern[at - 1] == "/")
            is_double = is_double and (follows in ("", "/") or pattern[after : after + 2] == "\\/")
            crosses = not is_path or is_double
            if is_path and is_double and follows == "/" and matches(after + 1, here):
                return True
            for end in range(here, len(text) + 1):
                if matches(after, end):
                    return True
                if not crosses and text[end : end + 1] == "/":
                    return False
            return False
        if here == len(text):
            return False
        if char == "?":
            return not (is_path and text[here] == "/") and matches(at + 1, here + 1)
        if char == "\\":
            return pattern[at + 1 : at + 2] == text[here] and matches(at + 2, here + 1)
        return char == text[here] and matches(at + 1, here + 1)

    return matches(start, start)


VERSIONS = ((3, 11), (3, 9))


@pytest.fixture(params=VERSIONS, ids=["atomic group", "lookahead"])
def python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Nodes may have a Python that does not know atomic groups."""
    monkeypatch.setattr(sys, "version_info", request.param)
    version: tuple[int, int] = request.param
    return version


PATTERNS = st.text(alphabet="aab*?/\\", max_size=12)
TEXTS = st.text(alphabet="aab/", max_size=12)


@settings(max_examples=3000)
@given(pattern=PATTERNS, text=TEXTS)
def test_any_path_matches_as_in_git(pattern: str, text: str) -> None:
    expected = plainly(pattern, text, is_path=True)
    assert [_with(version, path_regex, pattern, text) for version in VERSIONS] == [expected] * 2


@settings(max_examples=1500)
@given(pattern=PATTERNS, text=TEXTS)
def test_any_name_matches_as_in_git(pattern: str, text: str) -> None:
    pattern, text = pattern.replace("/", "b"), text.replace("/", "b")
    expected = plainly(pattern, text, is_path=False)
    assert [_with(version, name_regex, pattern, text) for version in VERSIONS] == [expected] * 2


def _with(version: tuple[int, int], translate: Callable[[str], str], pattern: str, text: str) -> bool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "version_info", version)
        return re.compile(translate(pattern), re.DOTALL).fullmatch(text) is not None


@pytest.mark.parametrize(
    ("translate", "pattern", "text"),
    [
        (name_regex, "*a" * 40 + "b", "a" * 250),
        (name_regex, "*?" * 60 + "b", "a" * 250),
        (name_regex, "*[a-z]*a" * 20 + "b", "a" * 250),
        (name_regex, "*" * 200 + "b", "a" * 250),
        (path_regex, "x/" + "*a" * 40 + "b", "x/" + "a" * 250),
        (path_regex, "**/a*" * 20 + "b", "a/" * 1000 + "a"),
        (path_regex, "**/" * 40 + "b", "a/" * 1000 + "a"),
        (path_regex, "a/**/" * 30 + "b", "a/" * 1000 + "a"),
        (path_regex, "**/*a*a*a/**/*a*a*a/**/*a*a*b", "aaaaaaaaaa/" * 300 + "a"),
        (path_regex, "**\\/a*" * 20 + "b", "a/" * 1000 + "a"),
    ],
)
def test_many_stars_do_not_take_long(
    python: tuple[int, int], translate: Callable[[str], str], pattern: str, text: str
) -> None:
    """Trying every way to share the text among the stars would take longer than the universe has existed."""
    compiled = re.compile(translate(pattern), re.DOTALL)
    begun = time.process_time()
    assert compiled.fullmatch(text) is None
    assert time.process_time() - begun < 5.0


def test_a_long_bracket_expression_is_read_in_linear_time() -> None:
    begun = time.process_time()
    name_regex("[" + "[:" * 200_000 + "]")
    name_regex("[" + "[a" * 200_000 + "]" + string.ascii_letters)
    assert time.process_time() - begun < 5.0
