"""A stage's line says what is known, in the cells that there are."""

from __future__ import annotations

import pytest

from amlctl.cli.render.stages import StageBoard, StageState
from amlctl.cli.render.tables import cell_width
from amlctl.core.events import Stage, StageProgress


def running(subject: str = "working/x", seconds: int = 10) -> StageState:
    """Half way: 1 of 2 GB, 500 of 1000 files, at a steady rate."""
    board = StageBoard()
    for step in range(1, seconds + 1):
        share = step / seconds / 2
        event = StageProgress(Stage.SEND, subject, round(1000 * share), round(2e9 * share), 1000, 2_000_000_000)
        state = board.update(event, float(step))
    return state


def test_all_that_is_known() -> None:
    assert running().line(10.0, 110) == (
        "send    working/x  ━━━━━━━━━━──────────  50%  500/1,000 files  1.0 GB of 2.0 GB  100 MB/s  10 s left"
    )


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 200])
def test_a_line_fits(width: int) -> None:
    line = running("working/image/classification/screenshot/64x64").line(10.0, width)
    assert cell_width(line) <= width
    assert "64x64" in line
    assert "50%" in line
    assert "10 s left" in line or width < 40


def test_nothing_is_invented() -> None:
    board = StageBoard()
    state = board.update(StageProgress(Stage.SCAN, "working/x", 1200, 0), 1.0)
    assert state.line(1.0, 80) == "scan    working/x  1,200 files"


def test_it_is_not_done_before_it_is_done() -> None:
    board = StageBoard()
    state = board.update(StageProgress(Stage.SEND, "d", 1, 999_999, 1, 1_000_000), 1.0)
    assert "99%" in state.line(1.0, 80)


def test_a_finished_stage_leaves_the_board() -> None:
    board = StageBoard()
    board.update(StageProgress(Stage.HASH, "d", 1, 10, 2, 20), 1.0)
    assert len(board.lines(1.0, 80)) == 1
    state = board.update(StageProgress(Stage.HASH, "d", 2, 20, 2, 20, is_done=True), 4.0)
    assert board.lines(4.0, 80) == []
    assert state.summary(4.0) == "hash    d  2 files, 20 B in 3.0 s"
