"""Sizes and times in words."""

from __future__ import annotations

import pytest

from amlctl.cli.render.quantities import between, duration, moment, size
from amlctl.core.wording import count


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9949, "9.9 kB"),
        (9951, "10 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (380_000_000, "380 MB"),
        (5e15, "5.0 PB"),
        (5e18, "5000 PB"),
    ],
)
def test_size(number: float, words: str) -> None:
    assert size(number) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_counts() -> None:
    assert count(1, "file") == "1 file"
    assert count(12000, "file") == "12,000 files"


def test_moments() -> None:
    assert between("2026-01-01T10:00:00+00:00", "2026-01-01T10:00:30+00:00") == "30 s"
    assert between("", "2026-01-01T10:00:30+00:00") == ""
    assert moment("not a time") == "not a time"
