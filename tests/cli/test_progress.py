"""Progress says what is known, in the cells that there are: as lines in a pipe, as rich's region on a terminal."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from amlctl.cli.render import progress as module
from amlctl.cli.render.live import Region
from amlctl.cli.render.progress import LiveProgress, Progress, StageState, Wait
from amlctl.core.events import Stage, StageProgress

HALF = StageProgress(Stage.SEND, "working/x", 500, 1_000_000_000, 1000, 2_000_000_000)


def state(event: StageProgress) -> StageState:
    return StageState(event, started_s=0.0)


def test_a_line_has_everything_known() -> None:
    half = state(HALF)
    half.note(10.0)
    assert half.line(10.0) == ("send    working/x  50%  500/1,000 files  1.0 GB of 2.0 GB  100 MB/s  10 s left")


def test_nothing_is_invented() -> None:
    assert state(StageProgress(Stage.SCAN, "working/x", 1200, 0)).line(1.0) == "scan    working/x  1,200 files"


def test_it_is_not_done_before_it_is_done() -> None:
    assert state(StageProgress(Stage.SEND, "d", 1, 999_999, 1, 1_000_000)).percent == "99%"


def test_a_summary() -> None:
    done = StageProgress(Stage.HASH, "d", 2, 20, 2, 20, is_done=True)
    assert state(done).summary(3.0) == "hash    d  2 files, 20 B in 3.0 s"


def test_a_pipe_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    lines: list[str] = []
    progress = Progress(lines.append)
    for second in range(13):
        now_s[0] = float(second)
        progress.update(HALF._replace(done_bytes=second * 100_000_000))
    progress.update(HALF._replace(is_done=True))
    assert [line.split("  ")[3] for line in lines] == ["25%", "50%", "500 files, 1.0 GB in 12 s"]


def test_a_quick_stage_leaves_no_line() -> None:
    lines: list[str] = []
    progress = Progress(lines.append)
    progress.update(HALF)
    progress.update(HALF._replace(is_done=True))
    assert lines == []


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Callable[[LiveProgress, int], list[str]]:
    """The lines of the region on a screen of so many cells, without its thread."""

    def lines(progress: LiveProgress, width: int) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        region = Region(progress, io.StringIO(), has_color=False)
        console = Console(width=width, color_system=None)
        with console.capture() as captured:
            console.print(region.drawn())
        return captured.get().splitlines()

    return lines


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> LiveProgress:
    monkeypatch.setattr(module, "LIVE_DELAY_S", 1000.0)
    return LiveProgress(lambda line: None, io.StringIO(), has_color=False)


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
@pytest.mark.parametrize(
    "subject", ["working/image/classification/screenshot/64x64", "working/日本語/" + "日" * 40], ids=["path", "cjk"]
)
def test_the_region_fits(
    live: LiveProgress, screen: Callable[[LiveProgress, int], list[str]], width: int, subject: str
) -> None:
    live.update(HALF._replace(subject=subject))
    (line,) = screen(live, width)
    assert "send" in line
    assert subject[-5:] in line
    assert "50%" in line
    assert "━━━" in line
    assert ("1.0 GB of 2.0 GB" in line) == (width >= 80)
    assert ("500/1,000 files" in line) == (width >= 100)
    live.pause()


def test_a_screen_of_80_cells_has_bar_bytes_rate_and_time_left(
    live: LiveProgress, screen: Callable[[LiveProgress, int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    for second in range(11):
        now_s[0] = float(second)
        live.update(HALF._replace(done_bytes=second * 100_000_000))
        (line,) = screen(live, 80)
    assert line.split("━")[-1].strip() == "50% 1.0 GB of 2.0 GB 100 MB/s 10 s left"
    live.pause()


def test_hashing_is_not_shown_beside_the_sending_that_it_waits_for(
    live: LiveProgress, screen: Callable[[LiveProgress, int], list[str]]
) -> None:
    live.update(HALF._replace(stage=Stage.HASH))
    live.update(HALF)
    (line,) = screen(live, 80)
    assert line.startswith("send")
    live.pause()


def test_a_finished_stage_leaves_the_region(
    live: LiveProgress, screen: Callable[[LiveProgress, int], list[str]]
) -> None:
    live.update(HALF)
    live.update(HALF._replace(is_done=True))
    assert screen(live, 80) == []
    live.pause()


def test_a_wait_is_shown_as_long_as_it_lasts(
    live: LiveProgress, screen: Callable[[LiveProgress, int], list[str]]
) -> None:
    live.wait(Wait("blob storage", "throttled, retry 1 of 6", 30.0))
    live.wait(Wait("other", "throttled", 0.0))
    (line,) = screen(live, 80)
    assert re.match(r"wait    blob storage: throttled, retry 1 of 6 in (30|2\d) s", line)
    live.pause()


def test_a_region_that_is_late_is_not_drawn_beside_the_next_one(live: LiveProgress) -> None:
    """Its timer had gone off, and rich was being imported, when something else needed the terminal."""
    live.update(HALF)
    late = next(thread for thread in threading.enumerate() if isinstance(thread, threading.Timer))
    live.pause()
    live.update(HALF)
    late.function(*late.args)
    assert live._region is None
    live.pause()
