"""Two projects, one store: each sees what the other one has shared."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from amlctl.localfs.project import Project
from amlctl.operations.init import init
from amlctl.runs.known import shared_folder
from tests.cli.conftest import Cli, StartTerminal
from tests.support.warm_command import WarmCommand

SCRIPT = """
import os, pathlib
pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"], "result.txt").write_text("42")
"""


@pytest.fixture
def team(tmp_path: Path, warm: WarmCommand) -> tuple[Cli, Cli]:
    found = []
    for name in ("anna", "ben"):
        cli = Cli(tmp_path / name, warm)
        init(cli.cwd)
        cli.write(".amlctl.toml", f'[workspaces.local]\ncompute = "local"\nstore = "{tmp_path / "shared"}"\n')
        (cli.cwd / "pptdaml.yaml").unlink()
        found.append(cli)
    anna, ben = found
    anna.write("data_blobs/working/faces/a.txt", "a")
    anna.write("data_blobs/working/texts/b.txt", "b")
    anna.json("sync", "working/faces", "working/texts")
    return anna, ben


def test_status_knows_the_datasets_of_the_store(team: tuple[Cli, Cli]) -> None:
    _, ben = team
    found = ben.json("status")["datasets"]
    assert [(one["dataset"], one["here"]) for one in found] == [("working/faces", False), ("working/texts", False)]
    answer = ben("status")
    assert "working/faces  not on this machine" in answer.out
    assert "amlctl sync --pull PATH" in answer.out


def test_a_store_that_is_gone_is_reported_by_every_command(team: tuple[Cli, Cli], tmp_path: Path) -> None:
    """And what is known here is shown, and kept."""
    anna, ben = team
    anna.write("pipeline/train.py", SCRIPT)
    ben.write("pipeline/train.py", SCRIPT)
    run = anna.json("submit", "train.py")["run"]
    assert [one["run"] for one in ben.json("runs")["runs"]] == [run]
    (tmp_path / "shared").rename(tmp_path / "unmounted")
    (tmp_path / "shared").mkdir()
    found = anna.json("status")["datasets"]
    assert [(one["dataset"], one["here"], one["store_gone"]) for one in found] == [
        ("working/faces", True, True),
        ("working/texts", True, True),
    ]
    assert "no changes since the last sync; the store is gone" in anna("status").out
    for cli in (anna, ben):
        answer = cli("runs", "--json")
        assert [one["run"] for one in answer.document["runs"]] == [run]
        assert "shared is gone" in answer.err
    for code, *words in (
        (6, "dataset", "list"),
        (6, "dataset", "remove", "working/faces", "--yes"),
        (6, "dataset", "restore", "working/faces"),
        (6, "sync", "--pull"),
        (5, "sync", "working/faces"),
        (6, "submit", "train.py"),
        (6, "submit", "--from", run),
        (6, "fetch", run),
        (6, "runs", "plot", run),
        (6, "runs", "share", run),
        (6, "store", "stats"),
        (6, "store", "gc", "--yes"),
        (6, "store", "verify"),
    ):
        answer = anna(*words)
        assert (answer.code, "shared is gone" in answer.err) == (code, True), (words, answer)
    assert not [*(tmp_path / "shared").rglob("*")]
    (tmp_path / "shared").rmdir()
    (tmp_path / "unmounted").rename(tmp_path / "shared")
    assert [path.stem for path in shared_folder(Project(ben.cwd).state_dir).iterdir()] == [run]
    assert {one["remote_moved"] for one in anna.json("status")["datasets"]} == {False}


def test_a_pull_without_a_path_offers_them(team: tuple[Cli, Cli], terminal: StartTerminal) -> None:
    _, ben = team
    answer = ben("sync", "--pull", "--json")
    assert answer.code == 2
    assert answer.document["error"]["details"] == ["working/faces", "working/texts"]
    assert ben("sync").code == 2
    screen = terminal(ben.command("sync", "--pull"), ben.cwd)
    screen.wait_for("(Enter: none): ")
    assert "2  working/texts" in screen.text
    screen.type("3\n")
    screen.wait_for("not in the list: 3")
    screen.type("2 working/faces\n")
    assert screen.finish() == 0
    assert {one["here"] for one in ben.json("status")["datasets"]} == {True}


def test_names_are_suggested_and_completed(team: tuple[Cli, Cli]) -> None:
    _, ben = team
    answer = ben("sync", "--pull", "working/face")
    assert answer.code == 4
    assert "did you mean working/faces?" in answer.err
    ben.write("pipeline/train.py", SCRIPT)
    answer = ben("submit", "train.py", "--dataset", "working/txts")
    assert answer.code == 4
    assert "did you mean working/texts?" in answer.err
    ben.json("dataset", "list")
    completed = ben(variables={"_AMLCTL_COMPLETE": "complete_bash", "COMP_WORDS": "amlctl sync wor", "COMP_CWORD": "2"})
    assert {"working/faces", "working/texts"} <= set(completed.out.split()), completed


def test_runs_of_others_are_listed_and_can_be_fetched(team: tuple[Cli, Cli]) -> None:
    anna, ben = team
    anna.write("pipeline/train.py", SCRIPT)
    run = anna.json("submit", "train.py")["run"]
    assert [one["run"] for one in ben.json("runs")["runs"]] == [run]
    assert [path.stem for path in shared_folder(Project(ben.cwd).state_dir).iterdir()] == [run]
    assert [one["run"] for one in ben.json("runs")["runs"]] == [run]
    assert ben("runs", "show", "@last").code == 4, "a short form stands for a run of one's own"
    assert ben.json("fetch", run)["files"] == 1
    assert ben.json("runs", "show", run[:-2])["run"] == run
    assert ben.json("--workspace", "local", "runs", "show", run[:-2])["run"] == run
    ben.write("pipeline/train.py", SCRIPT)
    own = ben.json("submit", "train.py")["run"]
    assert ben.json("runs", "show", "train")["run"] == own, "a prefix of one's own run comes first"
    ben.json("runs", "delete", own, "--yes")
    assert ben.json("dataset", "show", "working/faces")["snapshots"][0]["runs"] == []
    ben.json("runs", "delete", run, "--yes")
    assert ben.json("runs")["runs"] == []
    gone = anna("fetch", run)
    assert (gone.code, f"run {run} was deleted from the store" in gone.err) == (4, True), gone
    assert gone.err.splitlines()[-1] == f"hint: amlctl runs delete {run} removes it here as well"
    assert anna("runs", "delete", run, "--yes").code == 0
    assert anna.json("runs")["runs"] == []
    assert not [*shared_folder(Project(ben.cwd).state_dir).iterdir()]


def test_files_of_a_folder_are_adopted(team: tuple[Cli, Cli], tmp_path: Path) -> None:
    anna, ben = team
    for name in ("a.txt", "b/c.txt"):
        path = tmp_path / "old/data_blobs/raw/scans" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    assert anna("sync", "--adopt", "../old/data_blobs/raw/scans", "--pull").code == 2
    done = anna.json("sync", "--adopt", "../old/data_blobs/raw/scans")
    assert (done["dataset"], done["files"], done["uploaded_bytes"]) == ("raw/scans", 2, 0)
    assert ben.json("sync", "--pull", "raw/scans")["downloaded_files"] == 2
    assert anna("sync", "--adopt", "../old/data_blobs/raw/scans").code == 5
    assert anna.json("sync", "--adopt", "../old/data_blobs/raw/scans", "raw/again")["dataset"] == "raw/again"


def test_what_another_project_runs_is_left_alone(team: tuple[Cli, Cli], tmp_path: Path) -> None:
    """A single run, and a sweep of which some runs wait: neither canceled nor deleted; the project that started them
    keeps their outputs."""
    anna, ben = team
    gate = tmp_path / "gate"
    anna.write(
        "pipeline/train.py",
        f"import pathlib, time\nwhile not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.02)\n{SCRIPT}",
    )
    anna.write("base.json", '{"lr": 1}')
    options = ("train.py", "--config", "base.json", "--env-from", "current", "--detach")
    single = anna.json("submit", *options)["run"]
    parent = anna.json("submit", *options, "--set", "lr=1,2", "--sweep", "--parallel", "1")["run"]
    runs = [single, f"{parent}_0", f"{parent}_1", parent]
    assert ben.json("runs", "show", single[:-1])["run"] == single  # not finished, so ben has no copy of its record
    for run in runs:
        answer = ben("cancel", run)
        assert (answer.code, "in another project folder" in answer.err) == (5, True), answer
        assert f"hint: cancel it there: amlctl cancel {run}" in answer.err
        assert ben("runs", "delete", run, "--yes").code == 5
    assert not (Project(ben.cwd).state_dir / "local").exists()
    stored = [tmp_path / f"shared/runs/{run}/record.json" for run in runs]
    assert not [path for path in stored if "Canceled" in path.read_text()]
    gate.touch()
    for run in (single, parent):
        assert anna("runs", "wait", run).code == 0
        assert ben.json("runs", "delete", run, "--yes")["deleted"][-1] == run


def test_a_run_whose_project_is_lost_can_be_deleted_after_a_while(team: tuple[Cli, Cli], tmp_path: Path) -> None:
    anna, ben = team
    anna.write("pipeline/train.py", SCRIPT)
    run = anna.json("submit", "train.py")["run"]
    stored = tmp_path / "shared/runs" / run
    record = stored / "record.json"
    for text in (record.read_text().replace('"status": "Completed"', '"status": "Running"'), "damaged"):
        record.write_text(text)
        assert ben("runs", "delete", run, "--yes").code in (1, 5)
        long_ago = time.time() - 31 * 86400
        os.utime(record, (long_ago, long_ago))
        assert ben("runs", "delete", run, "--yes").code in (1, 5), "its outputs are new"
        assert record.exists()
    for path in stored.rglob("*"):
        os.utime(path, (long_ago, long_ago))
    shutil.copytree(stored, tmp_path / "kept")
    assert ben.json("runs", "delete", run, "--yes")["deleted"] == [run]
    shutil.copytree(tmp_path / "kept", stored)
    record.write_text((anna.cwd / f".amlctl/runs/{run}/record.json").read_text().replace('"Completed"', '"Running"'))
    os.utime(record, (long_ago, long_ago))
    assert ben.json("runs", "show", run)["status"] == "NotResponding"
    assert ben("cancel", run).code == 5
    assert ben.json("runs", "delete", run, "--yes")["deleted"] == [run]
    assert not record.exists()
