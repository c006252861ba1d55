"""Logs with progress bars, as a terminal would show them in the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amlctl.core.log_text import LONGEST_LINE, CarriageReturnCollapser, TailFinder


def collapse(data: bytes) -> bytes:
    collapser = CarriageReturnCollapser()
    return collapser.feed(data) + collapser.flush()


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"one\ntwo\n", b"one\ntwo\n"),
        (b"10%\r50%\r100%\ndone\n", b"100%\ndone\n"),
        (b"windows\r\nends\r\r\n", b"windows\nends\n"),
        (b"\r1\r2", b"2"),
        (b"50%\r", b"50%"),
        (b"bar\r\n\r\nnext", b"bar\n\nnext"),
        (b"no end", b"no end"),
        (b"", b""),
        (b"\xff\xfe\r\xc3", b"\xc3"),
    ],
)
def test_collapse(raw: bytes, shown: bytes) -> None:
    assert collapse(raw) == shown


@given(st.lists(st.sampled_from([b"a", b"bc", b"\r", b"\n", b"\r\n", b" "])), st.data())
def test_how_the_log_is_cut_makes_no_difference(parts: list[bytes], data: st.DataObject) -> None:
    raw = b"".join(parts)
    collapser = CarriageReturnCollapser()
    done = b""
    position = 0
    while position < len(raw):
        size = data.draw(st.integers(1, 4))
        done += collapser.feed(raw[position : position + size])
        position += size
        assert done + collapser.pending == collapse(raw[:position])
    assert done + collapser.flush() == collapse(raw)
    assert b"\r" not in done
    assert done.count(b"\n") == raw[: raw.rfind(b"\n") + 1].count(b"\n")


def tail(data: bytes, count: int, part: int) -> bytes:
    """By pieces of `part` bytes, from the end on."""
    finder, end = TailFinder(count, len(data)), len(data)
    while finder.start is None:
        start = max(0, end - part)
        finder.feed(data[start:end], start)
        end = start
    return data[finder.start :]


@pytest.mark.parametrize("part", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, b""), (1, b"c\n"), (2, b"b\nc\n"), (3, b"a\nb\nc\n"), (9, b"a\nb\nc\n")],
)
def test_tail_lines(count: int, expected: bytes, part: int) -> None:
    assert tail(b"a\nb\nc\n", count, part) == expected


@pytest.mark.parametrize("part", [1, 2, 100])
def test_tail_counts_a_last_line_without_an_end(part: int) -> None:
    assert tail(b"a\nb\nc", 2, part) == b"b\nc"
    assert tail(b"", 3, part) == b""
    assert tail(b"\n\n", 1, part) == b"\n"


def test_a_very_long_line_is_passed_on_before_it_ends() -> None:
    collapser = CarriageReturnCollapser()
    passed = b"".join(collapser.feed(b"x" * 700_000) for _ in range(9))
    assert len(passed) > 5 * LONGEST_LINE
    assert len(collapser.pending) <= LONGEST_LINE
    assert passed + collapser.feed(b"y\n") == b"x" * 6_300_000 + b"y\n"
