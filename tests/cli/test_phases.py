"""Each wait of a run has a phase and a reason, and the phases are in its record with their times."""

from __future__ import annotations

import re
import time

from tests.cli.conftest import LIMIT_S, Cli

UNTIL_GO = "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists():\n    time.sleep(0.02)\n"


def test_the_record_says_how_long_each_phase_took(project: Cli) -> None:
    project.write("data_blobs/working/x/1.txt", "1")
    project.write("pipeline/sleep.py", "import time\ntime.sleep(0.3)\n")
    assert project("submit", "sleep.py", "--dataset", "working/x", "--env-from", "current").code == 0
    phases = project.json("runs", "show", "@last")["phases"]
    assert [one["name"] for one in phases] == ["sync", "code", "env", "data", "run", "save"]
    assert phases[2]["note"] == "cached"
    shown = project("runs", "show", "@last").out
    (line,) = [line for line in shown.splitlines() if line.startswith("phases")]
    names = [part.split()[0] for part in line.removeprefix("phases").split("›")]
    assert names == ["sync", "code", "queue", "env", "data", "run", "save"]
    assert "env cached" in line
    narrow = project("runs", "show", "@last", variables={"COLUMNS": "60"}).out
    assert max(len(one) for one in narrow[narrow.index("phases") :].splitlines()[:2]) <= 60
    assert re.sub(r"\s+", " ", line) in re.sub(r"\s+", " ", narrow)
    assert re.search(r"^resources +CPU \d+% · peak memory \d+", shown, re.MULTILINE)


def test_a_queued_run_says_which_run_has_the_slot(project: Cli) -> None:
    project.write("pipeline/wait.py", UNTIL_GO)
    go = project.cwd / "go"
    submitted = ("submit", "wait.py", "--env-from", "current", "--detach")
    first, second, third = (project(*submitted, "--json", "--", go).document["run"] for _ in range(3))
    wanted = {second: f"slot 1 of 1, used by {first}", third: f"slot 1 of 1, used by {first}; 1 run before it"}
    deadline = time.monotonic() + LIMIT_S
    for run, reason in wanted.items():
        while (found := project.json("runs", "show", run)["waits_for"]) != f"waiting for {reason}":
            assert time.monotonic() < deadline, found
    go.touch()
    for run in (first, second, third):
        project("logs", run, "-f")
        assert project.json("runs", "show", run)["waits_for"] == ""
