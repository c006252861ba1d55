"""`submit --sweep` as a command: lines, table, document, and what other commands do with the parent."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from amlctl.cli.render.run_screen import RunScreen
from amlctl.core.events import SweepWatched
from amlctl.core.metrics import Goal
from amlctl.core.run import RunRecord
from amlctl.core.sweep import SweepRow
from tests.cli.conftest import Cli
from tests.support.schemas import check_document

SCRIPT = """
    import json, os, pathlib, sys
    config = json.load(open(sys.argv[2]))
    out = pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"])
    (out / "metrics.json").write_text(json.dumps({"score": config["rate"] * 2}))
    print("rate", config["rate"])
    sys.exit(config["code"])
"""
SUBMIT = ("submit", "train.py", "--config", "base.json", "--env-from", "current")


@pytest.fixture
def here(project: Cli) -> Cli:
    project.write("pipeline/train.py", SCRIPT)
    project.write("base.json", '{"rate": 1, "code": 0}')
    return project


def test_a_sweep_and_what_takes_its_parent(here: Cli) -> None:
    done = here(
        *SUBMIT, "--set", "rate=1,2", "--set", "code=0,3", "--sweep", "--parallel", "4", "--metric", "max:score"
    )
    assert done.code == 1
    runs = [line.split()[0] for line in done.out.splitlines()[1:5]]
    run = runs[0].removesuffix("_0")
    assert runs == [f"{run}_{number}" for number in range(4)]
    assert done.out.splitlines()[0].split() == ["RUN", "rate", "code", "STATUS", "TOOK", "score"]
    assert [line.endswith("best") for line in done.out.splitlines()[1:5]] == [False, False, True, False]
    assert f"best score 4  rate=2 code=0  {run}_2" in done.out
    for said in (f"run {run}_0  rate=1 code=0  Completed in ", f"run {run}_3  rate=2 code=3  Failed in "):
        assert said in done.err
    assert f"hint: amlctl logs {run}_1" in done.err
    assert json.loads((here.cwd / f"outputs/{run}_3/metrics.json").read_text()) == {"score": 4}

    shown = here.json("runs", "show", "@last")
    assert (shown["run"], shown["sweep"], shown["results"]["best"]) == (
        run,
        {"parallel": 4, "metric": "max:score", "runs": 4},
        f"{run}_2",
    )
    text = here("runs", "show", run).out
    assert [word in text for word in ("rate = ", "outputs  ", "best score 4")] == [False, False, True]
    assert "rate = " in here("runs", "show", runs[0]).out
    assert [line.split()[0] for line in here("runs").out.splitlines()[1:]] == [run, *runs]
    compared = here("runs", "compare", run, "--csv").out
    assert all(one in compared for one in runs)
    assert here("logs", run).code == 2
    assert here("logs", f"{run}_2").out == "rate 2\n"
    assert here.json("fetch", run)["files"] == 4

    again = here(*SUBMIT, "--set", "rate=1,2,3", "--sweep", "--needed", "--json")
    check_document("submit", again.document)
    assert [one["run"] for one in again.document["results"]["runs"]][:2] == [f"{run}_0", f"{run}_2"]
    new = again.document["run"]
    here.json("runs", "delete", f"{run}_0", "--yes")
    for words in (("runs", "compare"), ("runs", "report"), ("runs", "plot"), ("fetch",)):
        answer = here(*words, new, *(("--metric", "score") if "plot" in words else ()))
        assert f"1 run of {new} deleted: {run}_0" in answer.err, answer
        assert "plot" in words or answer.code == 0, answer
    rows = here.json("runs", "show", new)["results"]["runs"]
    assert [row["is_deleted"] for row in rows] == [True, False, False]
    [line] = [line for line in here("runs", "show", new).out.splitlines() if line.startswith(f"{run}_0")]
    assert line.endswith("  deleted")
    assert [row["values"]["rate"] for row in rows] == ["1", "2", "3"]
    assert f"amlctl logs {run}_2" in here("logs", new).err
    assert f"amlctl submit --from {run}_2" in here("submit", "--from", new).err
    waited = here("runs", "wait", new)
    assert (waited.code, f"1 run of {new} deleted: {run}_0" in waited.err) == (0, True)
    assert here("runs", "delete", new).err.splitlines()[-1].endswith(f": amlctl runs delete {new} --yes")
    assert here.json("runs", "delete", new, "--yes")["deleted"] == [f"{new}_2", new]
    assert here.json("runs", "delete", run, "--yes")["deleted"] == [*runs[1:], run]
    assert here.json("runs")["runs"] == []


def test_what_a_sweep_is_refused_for(here: Cli) -> None:
    many = ",".join(map(str, range(101)))
    for options, code, why in (
        (("--sweep", "--set", f"rate={many}"), 5, "this sweep has 101 runs"),
        (("--sweep", "--set", "rate=1,fast"), 2, "'fast' is text"),
        (("--sweep",), 2, "--sweep needs values to combine"),
        (("--sweep", "--set", "rate=1,2", "--metric", "min:"), 2, "Invalid metric 'min:'"),
        (("--sweep", "--set", "rate=1,2", "--metric", "avg:loss"), 2, "Invalid metric 'avg:loss'"),
        (("--set", "rate=1,2"), 2, "add --sweep for a run with each value"),
        (("--parallel", "2"), 2, "--parallel is for sweeps"),
    ):
        answer = here(*SUBMIT, *options)
        assert (answer.code, why in answer.err) == (code, True), answer
    planned = here.json(*SUBMIT, "--sweep", "--set", f"rate={many}", "--dry-run")
    assert len(planned["combinations"]) == 101
    assert here.json("runs")["runs"] == []


def test_the_screen_has_what_it_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "20")
    rows = [SweepRow(f"r_{n}", {"rate": str(n)}, "Completed", 1.0, {"score": n}) for n in range(30)]
    rows[3] = SweepRow("r_3", {"rate": "3"}, "Running")
    screen = RunScreen(io.StringIO(), has_color=False)
    screen.show(SweepWatched(RunRecord("r"), rows, Goal("score", is_lower_better=False)))
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        console.print(screen.drawn())
    lines = [line.rstrip() for line in captured.get().splitlines()]
    assert len(lines) <= 20
    assert lines[2].split() == ["r_3", "3", "Running"]
    assert [line.split()[0] for line in lines[3:16]] == [f"r_{n}" for n in range(17, 30)]
    assert lines[-2:] == ["29 of 30 finished  1 Running", "best score 29  rate=29  r_29"]
