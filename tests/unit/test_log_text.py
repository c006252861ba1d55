"""Logs with progress bars, as a terminal would show them in the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amlctl.core.log_text import CarriageReturnCollapser, tail_lines


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


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, b""), (1, b"c\n"), (2, b"b\nc\n"), (3, b"a\nb\nc\n"), (9, b"a\nb\nc\n")],
)
def test_tail_lines(count: int, expected: bytes) -> None:
    assert tail_lines(b"a\nb\nc\n", count) == expected


def test_tail_counts_a_last_line_without_an_end() -> None:
    assert tail_lines(b"a\nb\nc", 2) == b"b\nc"
    assert tail_lines(b"", 3) == b""
