"""`amlctl runs plot` on a terminal with color, in a pipe, and as a document."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from amlctl.cli.render.tables import cell_width
from amlctl.core.store_keys import outputs_tree
from amlctl.localfs.project import Project
from amlctl.runs.tree_saver import TreeSaver
from amlctl.stores.directory import DirectoryStore
from tests.cli.conftest import Cli
from tests.cli.terminal import Terminal
from tests.cli.test_runs_list import add


def keep_outputs(project: Cli, run: str, folder: Path) -> None:
    """As the runtime saves them."""
    store = DirectoryStore(Project(project.cwd).state_dir / "store")
    TreeSaver(store, folder, outputs_tree(run)).save(is_last=True)


@pytest.fixture
def plotted(project: Cli, tmp_path: Path) -> Cli:
    """Two runs with series of 60 steps, and one with last values only."""
    Project(project.cwd).ensure_state_dir()
    for number in (1, 2):
        run = add(project, number, {"train.loss": 0.1, "accuracy": 0.9})
        folder = tmp_path / run
        folder.mkdir()
        lines = [
            {"step": step, "train": {"loss": math.exp(-step / 10 / number)}, "accuracy": step / 60}
            for step in range(60)
        ]
        lines[30]["accuracy"] = math.nan
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        keep_outputs(project, run, folder)
    add(project, 3, {"train.loss": 0.2})
    return project


def without_color(text: str) -> list[str]:
    return [re.sub("\x1b.*?m", "", line) for line in text.splitlines()]


def braille(lines: Sequence[str]) -> int:
    return sum("⠀" < sign <= "⣿" for line in lines for sign in line)


def test_a_metric_that_is_typed_as_a_run(plotted: Cli) -> None:
    answer = plotted("runs", "plot", "run-001", "accuracy")
    assert (answer.code, answer.err.splitlines()[-1]) == (4, "hint: amlctl runs plot run-001 --metric accuracy")


def test_two_runs_in_a_pipe(plotted: Cli) -> None:
    answer = plotted("runs", "plot", "run-001", "run-002", "run-003", "--metric", "train.loss")
    lines = answer.out.splitlines()
    assert lines[0] == "train.loss"
    assert max(map(cell_width, lines)) <= 80
    assert braille(lines) > 100
    assert lines[-3:] == [
        "1 run-001  last 0.002739, best 0.002739 at step 59",
        "2 run-002  last 0.05234, best 0.05234 at step 59",
        "run-003  no series of train.loss",
    ]
    assert [line.split("┤")[0].strip() for line in lines if "┤" in line] == ["1", "0.5", "0"]
    assert any(line.endswith("1") for line in lines[1:19])
    assert any(line.endswith("2") for line in lines[1:19])


@pytest.mark.parametrize("columns", [80, 200])
def test_a_terminal_gets_colors_unless_it_wants_none(plotted: Cli, columns: int) -> None:
    command = plotted.command("runs", "plot", "run-001", "run-002")
    screen = Terminal(command, plotted.cwd, columns=columns)
    assert screen.finish() == 0
    assert "\x1b[36m" in screen.text
    assert "\x1b[33m" in screen.text
    lines = without_color(screen.text)
    assert columns - 2 <= max(map(cell_width, lines)) <= columns
    plain = Terminal(command, plotted.cwd, columns=columns, variables={"NO_COLOR": "1"})
    assert plain.finish() == 0
    assert "\x1b[3" not in plain.text
    assert braille(without_color(plain.text)) < braille(lines)  # dashes tell the curves apart


def test_a_screen_that_is_too_narrow_gets_a_narrow_plot(plotted: Cli) -> None:
    for columns in ("1", "5", "12"):
        answer = plotted("runs", "plot", "run-001", "run-002", variables={"COLUMNS": columns})
        assert (answer.code, answer.err, len(answer.out.splitlines())) == (0, "", 21)


def test_several_metrics_and_the_document(plotted: Cli) -> None:
    assert plotted("runs", "plot", "run-002").out.startswith("train.loss\n")
    assert plotted("runs", "plot", "run-002", variables={"AMLCTL_METRIC": "accuracy"}).out.startswith("accuracy\n")
    both = plotted("runs", "plot", "run-002", "-m", "accuracy", "-m", "train.loss").out
    assert [line for line in both.splitlines() if line in ("accuracy", "train.loss")] == ["accuracy", "train.loss"]
    assert "1 not finite" in both
    document = plotted.json("runs", "plot", "run-002", "run-003", "-m", "accuracy")
    assert document["metric"] == "accuracy"
    assert document["missing"] == ["run-003"]
    assert document["runs"][0]["points"][29:32] == [[29, 29 / 60], [30, "NaN"], [31, 31 / 60]]


def test_what_cannot_be_plotted(plotted: Cli) -> None:
    answer = plotted("runs", "plot", "run-001", "--metric", "train.los")
    assert (answer.code, answer.out) == (4, "")
    assert "hint: did you mean train.loss?" in answer.err
    answer = plotted("runs", "plot", "run-003")
    assert "only a last value of 'train.loss'" in answer.err
    assert 'hint: a script appends a line such as {"step": 1, "loss": 0.5}' in answer.err
    assert "hint: series: train.loss, accuracy" in plotted("runs", "plot", "run-001", "-m", "zzzzzzzz").err
    add(plotted, 4, {})
    assert "the runs have no metrics" in plotted("runs", "plot").err
