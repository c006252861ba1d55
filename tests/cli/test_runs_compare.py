"""`amlctl runs compare` as text, Markdown, CSV and JSON; for more runs than fit side by side."""

from __future__ import annotations

import csv
import io
import re

import pytest

from amlctl.cli.render.tables import cell_width
from amlctl.localfs.project import Project
from amlctl.runs.records import save_local_record
from tests.cli.conftest import Cli
from tests.cli.terminal import Terminal
from tests.cli.test_runs_list import add
from tests.support.runs import run_record

ENVIRONMENTS = ("- numpy==1.26\n- scipy", "- numpy==2.0\n- scipy\n- pandas")


@pytest.fixture
def seven(project: Cli) -> Cli:
    Project(project.cwd).ensure_state_dir()
    for number in range(1, 8):
        add(
            project,
            number,
            {"accuracy": number / 10, "loss": 1 / number, "same": 3},
            config="c.json",
            config_content={"lr": number, "note": "a|b <i> *x*", "fixed": True},
            environment=f"environment-{number % 2}",
            environment_content=ENVIRONMENTS[number % 2],
            tags={"long": "words " * 30} if number == 7 else {},
        )
    return project


def test_a_table_of_two(seven: Cli) -> None:
    answer = seven("runs", "compare", "run-002", "run-001")
    assert (
        answer.out
        == """\
               run-002        run-001
config
  lr           2              1
environment
  environment  environment-0  environment-1
metrics
  accuracy     0.2            0.1 (−0.1)
  loss         0.5            1 (+0.5)
  same         3              3 (=)

environment of run-001
  + numpy==2.0
  + pandas
  − numpy==1.26
"""
    )


def test_a_difference_is_that_of_the_values_as_shown(project: Cli) -> None:
    Project(project.cwd).ensure_state_dir()
    add(project, 1, {"loss": 0.12449, "large": 1_000_000, "same": 0.500001})
    add(project, 2, {"loss": 0.12551, "large": 1_000_001, "same": 0.500002})
    lines = project("runs", "compare", "run-001", "run-002").out.splitlines()
    assert [line.split()[1:] for line in lines[2:]] == [
        ["0.1245", "0.1255", "(+0.001)"],
        ["1000000", "1000001", "(+1)"],
        ["0.5", "0.5", "(+1e-06)"],
    ]
    for number, seconds in ((3, "03.04"), (4, "03.01"), (5, "03.26")):
        record = run_record(f"run-00{number}", "pipeline/train.py", status="Completed")
        record.times.update(Running="2026-01-01T03:00:01+00:00", Completed=f"2026-01-01T03:00:{seconds}+00:00")
        save_local_record(Project(project.cwd).state_dir, record)
    (took,) = (
        one for one in project("runs", "compare", "run-003", "run-004", "run-005").out.splitlines() if "took" in one
    )
    assert re.split("  +", took.strip()) == ["took", "2.0 s", "2.0 s (=)", "2.3 s (+0.3 s)"]


def test_more_runs_than_fit_are_shown_in_blocks(seven: Cli) -> None:
    runs = [f"run-00{number}" for number in range(1, 8)]
    screen = Terminal(seven.command("runs", "compare", *runs), seven.cwd, columns=60)
    assert screen.finish() == 0
    lines = [re.sub("\x1b.*?m", "", line) for line in screen.text.splitlines()]
    assert all(cell_width(line) <= 60 for line in lines if "words" not in line)
    assert [line.split() for line in lines if line.strip().startswith("lr ")] == [
        ["lr", "1", str(number)] for number in range(2, 8)
    ]
    assert "settings tag long" in lines
    piped = seven("runs", "compare", *runs).out.splitlines()
    assert piped[0].split() == runs


def test_markdown_and_csv(seven: Cli) -> None:
    lines = seven("runs", "compare", "run-001", "run-007", "--md").out.splitlines()
    assert lines[:2] == ["|  | run-001 | run-007 |", "| --- | --- | --- |"]
    assert "| accuracy | 0.1 | 0.7 (+0.6) |" in lines
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 4 for line in lines if line.startswith("|"))
    rows = list(csv.reader(io.StringIO(seven("runs", "compare", "run-001", "run-007", "--csv").out)))
    assert rows[0] == ["field", "run-001", "run-007"]
    assert ["metrics.same", "3", "3"] in rows
    assert ["tag long", "", "words " * 30] in rows
    assert seven("runs", "compare", "run-001", "run-007", "--csv", "--md").code == 2


def test_the_document_has_deltas(seven: Cli) -> None:
    document = seven.json("runs", "compare", "run-001", "run-004")
    assert document["metrics"][2] == {"name": "same", "values": [3, 3], "deltas": [0, 0]}
    assert document["environment"] == [
        None,
        {"added": ["numpy==1.26"], "modified": [], "deleted": ["numpy==2.0", "pandas"]},
    ]
    assert {"field": "config.lr", "values": [1, 4]} in document["differences"]
