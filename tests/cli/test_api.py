"""`from amlctl import sync, submit, …`, in a project as `init` makes it."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import amlctl
from amlctl import fetch, list_runs, logs, submit, sync
from amlctl.core.events import Event, LogText, RunCreated
from amlctl.errors import Conflict, NotFound, RunFailed, UsageError
from amlctl.operations.submit.result import SubmitResult
from tests.cli.conftest import Cli

FILE = "data_blobs/working/numbers/a.txt"
PAGE = Path(__file__).parents[2] / "docs/python.md"
SCRIPT = """
    import json, os, pathlib, sys
    data = pathlib.Path(os.environ["AMLCTL_DATA_BLOBS_DIR"], "working/numbers/a.txt").read_text()
    config = json.loads(pathlib.Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
    print(f"data {data}, rate {config['rate']}")
    out = pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"])
    out.joinpath("metrics.json").write_text(json.dumps({"score": config["rate"] * 2}))
    sys.exit(config["code"])
"""


@pytest.fixture
def here(project: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """The current folder of this process as well."""
    project.write("pipeline/train.py", SCRIPT)
    project.write("config.json", '{"rate": 1, "code": 0}')
    project.write("data_blobs/working/numbers/a.txt", "one")
    monkeypatch.chdir(project.cwd)
    return project


def run(rate: float, code: int = 0, events: list[Event] | None = None) -> SubmitResult:
    return submit(
        "train.py",
        config="config.json",
        overrides={"rate": rate, "code": code},
        datasets=["data_blobs/working/numbers"],
        env_from="current",
        sink=([] if events is None else events).append,
    )


def test_a_run_from_data_to_outputs(here: Cli, capfd: pytest.CaptureFixture[str]) -> None:
    events: list[Event] = []
    assert sync("data_blobs/working/numbers", is_dry_run=True).added == 1
    assert sync("data_blobs/working/numbers").uploaded_bytes > 0
    assert sync("working/numbers", project=here.cwd).unchanged == 1

    result = run(0.5, events=events)
    assert result.record.status == "Completed"
    assert result.record.metrics == {"score": 1.0}
    assert [event.run for event in events if isinstance(event, RunCreated)] == [result.record.run]
    assert "".join(event.text for event in events if isinstance(event, LogText)) == "data one, rate 0.5\n"

    assert logs() == logs(result.record.run, tail=1) == "data one, rate 0.5\n"
    assert [record.run for record in list_runs()] == [result.record.run]
    assert list_runs(experiment="another") == []
    assert fetch("@last").downloaded_files == 0
    assert fetch(to="elsewhere", include=["*.json"]).downloaded_files == 1
    assert (here.cwd / "elsewhere/metrics.json").is_file()
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_the_command_sees_the_same_runs(here: Cli) -> None:
    detached = submit(
        "train.py", config="config.json", datasets=["working/numbers"], env_from="current", is_detached=True
    )
    events: list[Event] = []
    log = logs(detached.record.run, is_following=True, sink=events.append)
    assert log == "data one, rate 1\n"
    assert "".join(event.text for event in events if isinstance(event, LogText)) == log
    shown = here.json("runs", "show", detached.record.run)
    assert shown["status"] == "Completed"
    assert submit(from_run="@last", env_from="current").record.spec.datasets == detached.record.spec.datasets


def test_errors_are_raised_with_their_hint(here: Cli) -> None:
    with pytest.raises(RunFailed, match="is Failed") as failed:
        run(1, code=3)
    assert list_runs()[0].run in failed.value.message
    assert list_runs()[0].exit_code == 3
    assert any(note.startswith("hint: amlctl logs ") for note in failed.value.__notes__)
    with pytest.raises(NotFound):
        logs("another-run")
    with pytest.raises(NotFound):
        sync("data_blobs/working/missing")
    with pytest.raises(UsageError, match="on_conflict"):
        sync("data_blobs/working/numbers", on_conflict="mine")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="pull=True"):
        sync("data_blobs/working/numbers", snapshot="12ab")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tags": {"a": 1}}, "tags['a'] must be a string, not a value of type int"),
        ({"variables": {1: "a"}}, "a key of variables must be a string"),
        ({"overrides": {"rate": {1, 2}}}, "the value for rate cannot be written into a config"),
        ({"sweep": {"rate": [1, object()]}}, "the value for rate cannot be written into a config"),
        ({"sweep": {"rate": 0.1}}, "sweep['rate'] must be a list, not a value of type float"),
        ({"sweep": {"rate": [1, 2]}, "parallel": 0}, "parallel must be a whole number from 1"),
        ({"datasets": "working/numbers"}, "datasets must be a list, not a value of type str"),
        ({"after": [3]}, "after[0] must be a string, not a value of type int"),
        ({"processes": True}, "processes must be a whole number, not a value of type bool"),
        ({"timeout_s": "1h"}, "timeout_s must be a number, not a value of type str"),
        ({"is_detached": "no"}, "is_detached must be True or False, not a value of type str"),
        ({"project": 3}, "project must be a string, not a value of type int"),
    ],
)
def test_values_of_the_wrong_type_are_refused(here: Cli, given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        submit("train.py", config="config.json", env_from="current", **given)
    assert words in caught.value.message


def test_errors_have_no_secrets(here: Cli) -> None:
    with pytest.raises(NotFound) as caught:
        submit("https://user:hunter2hunter2@example.com/train.py")
    shown = [caught.value.message, caught.value.hint, *caught.value.details, *map(str, caught.value.args)]
    assert "example.com" in shown[0]
    assert not [text for text in (*shown, *caught.value.__notes__) if "hunter2" in text]


def test_conflicts_and_older_snapshots(here: Cli, tmp_path: Path) -> None:
    here.write(".amlctl.toml", f'[workspaces.local]\ncompute = "local"\nstore = "{tmp_path / "store"}"\n')
    other = shutil.copytree(here.cwd, tmp_path / "other")
    path, file, theirs = "working/numbers", here.cwd / FILE, other / FILE
    first = sync(path).snapshot
    assert sync(path, pull=True, project=other).files == 1
    theirs.write_text("two")
    sync(path, project=other)
    file.write_text("three")
    with pytest.raises(Conflict):
        sync(path)
    assert file.read_text() == "three"
    sync(path, pull=True, on_conflict="theirs")
    assert file.read_text() == "two"
    sync(path, pull=True, snapshot=first)
    assert file.read_text() == "one"


def test_in_a_notebook(here: Cli) -> None:
    """In the main thread below a running event loop, and in other threads beside it."""

    async def cell() -> list[str]:
        sync("data_blobs/working/numbers")
        first = run(1)
        others = await asyncio.gather(*(asyncio.to_thread(run, rate) for rate in (2, 3)))
        return [first.record.run, *(one.record.run for one in others)]

    found = asyncio.run(cell())
    assert {record.run for record in list_runs()} == set(found)
    assert not [one for one in threading.enumerate() if one.name.startswith("amlctl")]


def test_the_import_stays_light() -> None:
    program = "import sys; old = set(sys.modules); import amlctl; print(sorted(set(sys.modules) - old))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "['amlctl']\n"
    with pytest.raises(AttributeError, match="no attribute 'syncc'"):
        amlctl.syncc  # noqa: B018


def test_no_cloud_for_local_work(here: Cli) -> None:
    program = (
        "import sys\nfrom amlctl import list_runs, sync\nsync('working/numbers')\nlist_runs()\n"
        "print(sorted({one.partition('.')[0] for one in sys.modules} & {'azure', 'msal', 'typer', 'rich'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=here.cwd, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_example_of_the_page(here: Cli) -> None:
    script, example = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)[:2]
    here.write("pipeline/train.py", script)
    here.write("notebook.py", example)
    done = subprocess.run([sys.executable, "notebook.py"], cwd=here.cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "outputs/" + list_runs()[0].run
    assert [record.metrics["score"] for record in list_runs()] == [1.5, 0.5]


def test_a_sweep_gives_the_best(here: Cli) -> None:
    swept = submit(
        "train.py",
        config="config.json",
        sweep={"rate": [1, 2]},
        parallel=2,
        metric="max:score",
        datasets=["data_blobs/working/numbers"],
        env_from="current",
    )
    assert swept.results is not None
    assert swept.results.best is not None
    assert (swept.results.best.values, swept.results.best.metrics) == ({"rate": "2"}, {"score": 4})
