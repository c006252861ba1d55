from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from amlctl.core.run import RunRecord, RunSpec
from amlctl.core.run_id import MAX_LENGTH, new_run_id, newest_first, slug

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def test_an_id_tells_name_and_time() -> None:
    assert new_run_id("model_train", NOW, "0a1bffff") == "model_train-20260304-050607-0a1b"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("über Größe", "uber-Groe"),
        ("a/b c..d", "a-b-c-d"),
        ("--x__", "x"),
        ("画像", "run"),
        ("", "run"),
        ("_private", "private"),
    ],
)
def test_a_slug_holds_letters_digits_and_hyphens_only(name: str, expected: str) -> None:
    assert slug(name) == expected


def test_a_long_name_is_cut() -> None:
    run = new_run_id("n" * 500, NOW, "abcd")
    assert len(run) <= MAX_LENGTH
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*-20260304-050607-abcd", run)


def test_a_time_that_no_calendar_has_sorts_as_it_is_written() -> None:
    times = {"of-others": "0001-01-01T00:00:00+05:00", "own": "2026-03-04T05:06:07+00:00"}
    records = [RunRecord(run, RunSpec(), created_at=at) for run, at in times.items()]
    assert [record.run for record in newest_first(records, [])] == ["own", "of-others"]
