"""Tables fit, names cannot break a line, sizes and times in words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from amlctl.cli.render.tables import (
    Cell,
    Column,
    Table,
    bad,
    cell_width,
    duration,
    fields,
    good,
    linked,
    moment,
    painted,
    printable,
)
from amlctl.core.message import Command, Message, count, size

RUN = "model_train-20260101-120000-0a1b"
COLUMNS = [Column("RUN", is_whole=True), Column("SCRIPT"), Column("NOTE"), Column("SIZE", is_right=True)]


def drawn(table: Table, width: int) -> list[str]:
    return table.drawn(width, has_color=False).splitlines()


def test_a_table_as_wide_as_needed() -> None:
    table = Table(COLUMNS, [[RUN, "train.py", "n", "1"], ["r", "s", "日本", "100"]])
    lines = [
        "RUN                               SCRIPT    NOTE  SIZE",
        f"{RUN}  train.py  n        1",
        "r                                 s         日本   100",
    ]
    assert list(table.plain()) == lines
    assert drawn(table, 200) == lines


@pytest.mark.parametrize("width", [64, 80, 100])
def test_a_table_fits_and_whole_columns_stay_whole(width: int) -> None:
    table = Table(COLUMNS, [[RUN, "a/very/long/path/to/a/script_of_some_kind.py", "日本語" * 20, "12"]])
    lines = drawn(table, width)
    assert all(cell_width(line) <= width for line in lines)
    assert RUN in lines[1]
    assert "…" in lines[1]


def test_a_wrapped_column_continues_below() -> None:
    columns = [Column("NAME", is_whole=True), Column("NOTE", is_wrapped=True)]
    table = Table(columns, [["gpu", "made by another workspace"], ["local", ""]])
    assert drawn(table, 20) == [
        "NAME   NOTE",
        "gpu    made by",
        "       another",
        "       workspace",
        "local",
    ]


def test_a_long_name_is_wrapped_and_drops_no_column() -> None:
    columns = [Column("DATASET", is_wrapped=True), Column("FILES", is_whole=True, is_right=True), Column("BY", rank=1)]
    rows: list[list[Cell]] = [["raw/a", "1", "me"], [f"working/image/{'x' * 30}/64x64", "20", "me"]]
    assert drawn(Table(columns, rows), 38) == [
        "DATASET                      FILES  BY",
        "raw/a                            1  me",
        "working/image/                  20  me",
        f"{'x' * 27}",
        "xxx/",
        "64x64",
    ]


def test_a_narrow_screen_drops_columns_by_rank() -> None:
    columns = [Column("RUN", is_whole=True), Column("A", rank=1), Column("B", rank=2)]
    table = Table(columns, [["r" * 20, "a" * 15, "b" * 15]])
    assert drawn(table, 46)[0].split() == ["RUN", "A", "B"]
    assert drawn(table, 40)[0].split() == ["RUN", "A"]
    assert drawn(table, 25) == ["RUN", "r" * 20]


def test_empty_columns_are_left_out() -> None:
    assert list(Table(COLUMNS, [["r", "", "", "1"]]).plain()) == ["RUN  SIZE", "r       1"]


def test_a_table_without_headings() -> None:
    table = Table([Column(), Column()], [[good("ok"), "x"], [bad("FAILED"), "y"]])
    assert list(table.plain()) == drawn(table, 80) == ["ok      x", "FAILED  y"]
    whole = Table([Column(is_whole=True), Column(is_whole=True)], [["ok", "a longer name"]])
    assert drawn(whole, 80) == ["ok  a longer name"]


def test_color_changes_no_width() -> None:
    table = Table([Column("A"), Column("B")], [[good("x"), "y"]])
    assert table.drawn(80, has_color=True).splitlines()[1] == "\x1b[32mx\x1b[0m  y"


def test_odd_names_stay_on_one_line() -> None:
    assert printable("a\nb\tc\x1b[31m") == "a\\nb\\tc\\x1b[31m"
    assert printable(os.fsdecode(b"caf\xe9")) == "caf\\xe9"
    assert printable("café 日本") == "café 日本"
    assert list(Table([Column("A")], [["[red]\x1b[2J"]]).plain()) == ["A", "[red]\\x1b[2J"]
    assert drawn(Table([Column("A")], [["[red]\x1b[2J"]]), 80) == ["A", "[red]\\x1b[2J"]


def test_commands_in_a_table() -> None:
    table = Table([Column()], [[Message("then: ", Command("runs"))]]).in_words(str.upper)
    assert list(table.plain()) == ["THEN: AMLCTL RUNS"]


def test_a_line_of_parts() -> None:
    line: list[Cell] = [good("o\x1bk"), "  ", Message("then: ", Command("runs"))]
    assert painted(line, str.upper, has_color=False) == "O\\x1bK  THEN: AMLCTL RUNS"
    assert painted(line, str, has_color=True) == "\x1b[32mo\\x1bk\x1b[0m  then: amlctl runs"


def test_a_link_is_an_address_without_control_characters() -> None:
    link = linked("a b\x1b", Path("/tmp/a b\x1b"))
    assert painted([link], str, has_color=True, has_links=True) == (
        "\x1b]8;;file:///tmp/a%20b%1B\x1b\\a b\\x1b\x1b]8;;\x1b\\"
    )
    assert painted([link], str, has_color=True) == "a b\\x1b"
    for target in ("https://host/\x1b\\", "javascript:x", "", "https://host/a b"):
        assert painted([linked("x", target)], str, has_color=True, has_links=True) == "x"


def test_fields_leave_out_what_is_empty() -> None:
    assert list(fields([("a", "1"), ("bcd", ""), ("ef", "2\n3")])) == ["a   1", "ef  2", "    3"]


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
    assert moment("not a time") == "not a time"


@pytest.mark.parametrize("width", range(42, 100, 3))
def test_whole_columns_stay_whole_at_every_width(width: int) -> None:
    """rich shortens all columns alike and crops the lines: `37 s` became `37`, and the last column was lost."""
    columns = [Column("RUN", is_whole=True), Column("SCRIPT", rank=2), Column("EXPERIMENT", rank=3)]
    columns += [Column("TOOK", is_whole=True, is_right=True, rank=1), Column("score", is_whole=True, is_right=True)]
    row = ["train-20261128-185314", "image/classification/train.py", "ScreencopyDetection", "1 min 37 s", "0.8944"]
    heading, line = Table(columns, [row]).drawn(width, has_color=False).splitlines()
    assert line.startswith(row[0])
    assert line.endswith("1 min 37 s  0.8944")
    assert heading.endswith("TOOK   score")
    assert len(line) <= width
