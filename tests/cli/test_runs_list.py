"""`amlctl runs`: which runs, in which order, and what is shown of each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from amlctl.cli.render.tables import cell_width
from amlctl.localfs.project import Project
from amlctl.runs.known import note_made
from amlctl.runs.records import save_local_record
from tests.cli.conftest import Cli, StartTerminal
from tests.cli.terminal import Terminal
from tests.support.runs import run_record


def add(project: Cli, number: int, metrics: Mapping[str, Any], **fields: Any) -> str:
    """A run that has ended, made after all others."""
    run, hour = f"run-{number:03}", f"2026-01-01T{number % 24:02}"
    state_dir = Project(project.cwd).state_dir
    record = run_record(
        run,
        "pipeline/train.py",
        **{"status": "Completed", "created_at": f"{hour}:00:00+00:00", "metrics": dict(metrics), **fields},
    )
    record.times.update(Running=f"{hour}:00:01+00:00", Completed=f"{hour}:00:03+00:00")
    save_local_record(state_dir, record)
    note_made(state_dir, run)
    return run


@pytest.fixture
def listed(project: Cli) -> Cli:
    project("runs")  # makes the folder of state
    Project(project.cwd).ensure_state_dir()
    add(project, 1, {"accuracy": 0.5, "loss": 2})
    add(project, 2, {"accuracy": 0.98765, "loss": "NaN"})
    add(project, 3, {})
    add(project, 4, {"accuracy": 1, "loss": 0.25})
    return project


def ids(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if line.startswith("run-")]


def test_the_key_metric_is_the_last_column(listed: Cli) -> None:
    lines = listed("runs").out.splitlines()
    assert lines[0].split()[-1] == "accuracy"
    assert [line.split()[-1] for line in lines[1:]] == ["1", "s", "0.9877", "0.5"]
    assert listed("runs", "--metric", "loss").out.splitlines()[3].split()[-1] == "NaN"
    assert listed("runs", variables={"AMLCTL_METRIC": "loss"}).out.splitlines()[0].split()[-1] == "loss"
    listed.write(".amlctl.toml", '[runs]\nmetric = "loss"\n')
    assert listed.json("runs")["metric"] == "loss"
    answer = listed("runs", "--metric", "los")
    assert answer.err == "warning: no run has the metric 'los'; did you mean loss?\n"
    assert len(ids(answer.out)) == 4


def test_runs_are_sorted_by_a_metric_with_the_best_first(listed: Cli) -> None:
    assert ids(listed("runs", "--sort", "accuracy").out) == ["run-004", "run-002", "run-001", "run-003"]
    assert ids(listed("runs", "--sort", "loss").out)[:2] == ["run-004", "run-001"]
    assert ids(listed("runs", "--sort", "max:loss").out)[:2] == ["run-001", "run-004"]
    assert ids(listed("runs", "--sort", "time").out) == ["run-004", "run-003", "run-002", "run-001"]
    assert [run["run"] for run in listed.json("runs", "--sort", "loss", "-n", "1")["runs"]] == ["run-004"]
    answer = listed("runs", "--sort", "acuracy")
    assert (answer.code, answer.out) == (4, "")
    assert "hint: did you mean accuracy?" in answer.err


def test_twenty_are_listed_unless_all_are_asked_for(listed: Cli) -> None:
    for number in range(5, 42):
        add(listed, number, {})
    answer = listed("runs")
    assert len(ids(answer.out)) == 20
    assert answer.err == "… 21 more: --all\n"
    everything = listed("runs", "--all")
    assert (len(ids(everything.out)), everything.err) == (41, "")
    assert len(listed.json("runs")["runs"]) == 41
    assert listed("runs", "-q", "--limit", "2").out == "run-041\nrun-040\n"
    assert len(listed("runs", "-q").out.splitlines()) == 41
    assert listed("runs", "--all", "-n", "3").code == 2


def test_users_and_workspaces_are_shown_where_there_are_several(listed: Cli) -> None:
    assert "USER" not in listed("runs").out
    add(listed, 5, {}, user="ada")
    assert "USER" not in listed("runs").out
    add(listed, 6, {}, user="grace")
    lines = listed("runs").out.splitlines()
    assert "USER" in lines[0]
    assert "WORKSPACE" not in lines[0]
    assert "grace" in lines[1]


def test_a_narrow_terminal_keeps_the_metric(listed: Cli) -> None:
    add(listed, 5, {"accuracy": 0.123456, "a_metric_with_long_name": 1}, user="ada")
    add(listed, 6, {"a_metric_with_long_name": -1.23456e-5}, user="grace")
    screen = Terminal(listed.command("runs"), listed.cwd, columns=64)
    assert screen.finish() == 0
    assert "…ith_long_name" in screen.text
    assert "-1.235e-05" in screen.text
    assert all(cell_width(re.sub("\x1b.*?m", "", line)) <= 64 for line in screen.text.splitlines())


def test_names_of_metrics_complete(listed: Cli) -> None:
    for typed, expected in (
        ("amlctl runs list --sort ", ["accuracy", "loss"]),
        ("amlctl runs plot --metric l", ["loss"]),
        ("amlctl runs list --metric acc", ["accuracy"]),
    ):
        words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_AMLCTL_COMPLETE": "complete_bash"}
        assert listed(variables=words).out.split() == expected


def test_several_runs_to_delete_are_listed_before_the_question(project: Cli, terminal: StartTerminal) -> None:
    for number in (1, 2):
        add(project, number, {})
    screen = terminal(project.command("runs", "delete", "run-001", "run-002"), project.cwd)
    screen.wait_for("y/N: ")
    assert (
        "  run-001\r\n  run-002\r\n2 runs would be deleted: record, logs and stored outputs. Continue?" in screen.text
    )
    screen.type("n\n")
    assert screen.finish() == 5
    assert len(project.json("runs")["runs"]) == 2
    add(project, 3, {}, status="Preparing")
    refused = terminal(project.command("runs", "delete", "run-001", "run-003"), project.cwd)
    assert (refused.finish(), "is Preparing" in refused.text, "y/N" in refused.text) == (5, True, False)
