"""A run on a terminal: its log scrolls whole, below it stand phases and state, and nothing of that is left behind."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from amlctl.cli.render.run_screen import RunScreen
from amlctl.core.events import RunWatched, Usage
from amlctl.core.phases import Phase, begun
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState
from tests.cli.conftest import Cli, StartTerminal

TRAIN = """
import pathlib, sys, time
for step in range(4):
    sys.stdout.write(f"\\rstep {step}")
    sys.stdout.flush()
    time.sleep(0.3)
print()
print("\\x1b[32mall done\\x1b[0m")
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.02)
"""


def _event(**record: object) -> RunWatched:
    now = datetime.now(UTC)
    phases = [begun(Phase.SYNC, now - timedelta(seconds=70)), begun(Phase.ENVIRONMENT, now - timedelta(seconds=9))]
    found = RunRecord("r", status=RunState.RUNNING, phases=phases, **record)  # type: ignore[arg-type]
    found.phases.append(begun(Phase.RUN, now - timedelta(seconds=5)))
    usage = Usage(1.8, 1_200_000_000, 0.45, 8_000_000_000)
    return RunWatched(found, {"loss": 0.123456, "accuracy": 0.9}, usage, 31.0)


def _drawn(screen: RunScreen, width: int) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(screen.drawn())
    return captured.get().splitlines()


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_footer_fits_and_the_most_telling_stays(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    screen = RunScreen(io.StringIO(), has_color=False)
    screen.show(_event())
    rule, phases, state = _drawn(screen, width)
    assert set(rule) == {"─"}
    assert re.search(r"run \d+\.\d s$", phases.strip())
    assert state.startswith("Running  loss 0.1235  accuracy 0.9")
    assert ("cpu 180%" in state) == (width >= 80)
    assert ("gpu 45% 8.0 GB" in state) == (width >= 80)
    assert bool(re.search(r"saved \d+ s ago", state)) == (width >= 200)
    assert max(map(len, (rule, phases, state))) <= width


def test_a_wait_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    screen = RunScreen(io.StringIO(), has_color=False)
    record = RunRecord("r", status=RunState.QUEUED, waits_for="waiting for slot 1 of 1, used by other")
    screen.show(RunWatched(record))
    assert _drawn(screen, 80)[-1].strip() == "Queued  waiting for slot 1 of 1, used by other"


def test_a_progress_bar_of_the_script_moves_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    written = io.StringIO()
    screen = RunScreen(written, has_color=False)
    for text in ("first\n\r10%", "\r20%", "\r30"):
        screen.write_log(text)
    assert written.getvalue() == "first\n"
    assert _drawn(screen, 80) == ["30"]
    screen.write_log("%\nnext")
    screen.stop()
    assert written.getvalue() == "first\n30%\nnext\n"


@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1"}], ids=["color", "no color"])
def test_a_run_is_watched(project: Cli, terminal: StartTerminal, variables: dict[str, str]) -> None:
    project.write("pipeline/train.py", TRAIN)
    go = project.cwd / "go"
    command = project.command("submit", "train.py", "--env-from", "current", "--", go)
    screen = terminal(command, project.cwd, columns=100, variables=variables)
    screen.wait_for("all done")
    screen.wait_for("mem ")
    go.touch()
    assert screen.finish() == 0
    assert "env cached" in screen.text
    footers = screen.text.count("─" * 100)
    erased = len(re.findall(r"\x1b\[1A\x1b\[2K", screen.text))
    assert footers >= 2
    assert erased >= footers  # each is taken away before the next
    last = screen.text.rpartition("\x1b[2K")[2]
    assert "Completed" in last
    assert "─" not in last
    if variables:
        assert not re.search(r"\x1b\[[0-9;]*3[1-7]", screen.text.replace("\x1b[32mall done", ""))


def test_logs_follows_in_the_same_way(project: Cli, terminal: StartTerminal) -> None:
    project.write("pipeline/train.py", TRAIN)
    go = project.cwd / "go"
    run = project("submit", "train.py", "--env-from", "current", "--detach", "--json", "--", go).document["run"]
    screen = terminal(project.command("logs", run, "-f"), project.cwd)
    screen.wait_for("mem ")
    go.touch()
    assert screen.finish() == 0
    assert screen.text.count("all done") == 1
    assert f"{run}\x1b[0m  \x1b[32mCompleted" in screen.text
