"""Tables fit, names cannot break a line."""

from __future__ import annotations

import os

import pytest

from amlctl.cli.render.tables import Column, cell_width, cut, cut_path, fields, printable, table

RUN = "model_train-20260101-120000-0a1b"
COLUMNS = [Column("RUN", is_whole=True), Column("SCRIPT"), Column("NOTE"), Column("SIZE", is_right=True)]


def test_a_table_as_wide_as_needed() -> None:
    lines = table(COLUMNS, [[RUN, "train.py", "n", "1"], ["r", "s", "note", "100"]], 200)
    assert lines == [
        "RUN                               SCRIPT    NOTE  SIZE",
        f"{RUN}  train.py  n        1",
        "r                                 s         note   100",
    ]


@pytest.mark.parametrize("width", [64, 80, 100])
def test_a_table_fits_and_whole_columns_stay_whole(width: int) -> None:
    rows = [[RUN, "a/very/long/path/to/a/script_of_some_kind.py", "日本語" * 20, "12"]]
    lines = table(COLUMNS, rows, width)
    assert all(cell_width(line) <= width for line in lines)
    assert RUN in lines[1]
    assert "…" in lines[1]


def test_a_wrapped_column_goes_on_below() -> None:
    columns = [Column("NAME", is_whole=True), Column("NOTE", is_wrapped=True)]
    assert table(columns, [["gpu", "made by another workspace"], ["local", ""]], 20) == [
        "NAME   NOTE",
        "gpu    made by",
        "       another",
        "       workspace",
        "local",
    ]


def test_empty_columns_are_left_out() -> None:
    assert table(COLUMNS, [["r", "", "", "1"]], 80) == ["RUN  SIZE", "r       1"]


def test_painting_changes_no_width() -> None:
    painted = [Column("A", paint=lambda text: f"\x1b[1m{text}\x1b[0m"), Column("B")]
    assert table(painted, [["x", "y"]], 80)[1] == "\x1b[1mx\x1b[0m  y"


def test_odd_names_stay_on_one_line() -> None:
    assert printable("a\nb\tc\x1b[31m") == "a\\nb\\tc\\x1b[31m"
    assert printable(os.fsdecode(b"caf\xe9")) == "caf\\xe9"
    assert printable("café 日本") == "café 日本"


def test_cut() -> None:
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdef", 4) == "abc…"
    assert cut("日本語", 4) == "日…"
    assert cut_path("working/image/64x64", 10) == "…age/64x64"


def test_fields_leave_out_what_is_empty() -> None:
    assert fields([("a", "1"), ("bcd", ""), ("ef", "2\n3")]) == ["a   1", "ef  2", "    3"]
