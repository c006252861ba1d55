"""`amlctl dataset …` as typed: documents, exit codes, the slip that is undone."""

from __future__ import annotations

import shutil

import pytest

from tests.cli.conftest import Cli, StartTerminal


@pytest.fixture
def data(project: Cli) -> Cli:
    for name in ("a.txt", "b/c.txt"):
        project.write(f"data_blobs/working/x/{name}", name)
    project.json("sync", "working/x")
    return project


def test_documents(data: Cli) -> None:
    (listed,) = data.json("dataset", "list")["datasets"]
    assert (listed["dataset"], listed["files"], listed["here"]) == ("working/x", 2, True)
    assert {"snapshot", "layout", "bytes", "written_at", "written_by", "snapshots"} <= set(listed)
    shown = data.json("dataset", "show", "data_blobs/working/x")
    assert [one["snapshot"] for one in shown["snapshots"]] == [listed["snapshot"]]
    assert {"layout", "files", "bytes", "written_at", "written_by", "runs"} <= set(shown["snapshots"][0])
    (removed,) = data.json("dataset", "remove", "working/x", "--yes")["removed"]
    assert removed == {"dataset": "working/x", "snapshot": listed["snapshot"], "files": 2, "bytes": 12}
    assert data.json("dataset", "list")["datasets"] == []
    (gone,) = data.json("dataset", "list")["removed"]
    assert data("dataset", "list").out.startswith("All datasets of the store are removed: ")
    missing = data("dataset", "show", "working/x")
    assert missing.code == 4
    assert "was removed from the store by" in missing.err
    assert "hint: amlctl dataset restore working/x" in missing.err
    assert {"dataset", "removed_at", "removed_by", "restorable_until"} == set(gone)
    assert data.json("dataset", "restore", "working/x")["restored"] == removed


def test_a_slip_is_undone(data: Cli) -> None:
    assert data("sync", "data_blobs/working").code == 0
    asked = data("dataset", "remove", "working")
    assert asked.code == 5
    assert "dataset remove working --yes" in asked.err
    assert data("dataset", "remove", "working", "--yes").code == 0
    refused = data("sync", "data_blobs/working")
    assert (refused.code, "sync --force data_blobs/working starts it again" in refused.err) == (5, True)
    (data.cwd / "data_blobs/working").rename(data.cwd / "elsewhere")
    absent = data("sync", "data_blobs/working")
    assert (absent.code, absent.err.splitlines()[-1]) == (4, "hint: amlctl dataset restore working brings it back")
    (data.cwd / "elsewhere").rename(data.cwd / "data_blobs/working")
    status = data("status")
    assert "working  removed from the store" in status.out
    assert data.json("status", "working")["datasets"][0]["removed"]
    answer = data("dataset", "list")
    assert "working/x" in answer.out
    assert "amlctl dataset restore working" in answer.out
    assert data("sync", "working/x").code == 0


def test_a_name_that_is_not_there_gets_a_suggestion(data: Cli) -> None:
    answer = data("dataset", "remove", "workin/x", "--yes")
    assert answer.code == 4
    assert "did you mean working/x?" in answer.err


def test_gc_takes_a_number_and_an_age(data: Cli) -> None:
    for number in range(3):
        data.write("data_blobs/working/x/a.txt", f"version {number}")
        data.json("sync", "working/x")
    assert data.json("store", "gc")["keys"] == []
    assert data("store", "gc", "--keep", "0").code == 2
    assert data("store", "gc", "--older-than", "soon").code == 2
    assert data.json("store", "gc", "--keep", "1", "--older-than", "30d")["keys"] == []


def test_an_older_snapshot_is_offered_where_the_store_has_it(data: Cli) -> None:
    """A mirror keeps the newest bytes only."""
    for number, layout in enumerate(("mirror", "mirror", "pack", "pack")):
        data.write("data_blobs/working/y/a.txt", f"version {number}")
        data.json("sync", "working/y", "--layout", layout)
        hints = [line for line in data("dataset", "show", "working/y").out.splitlines() if "an older one" in line]
        assert bool(hints) == (number == 3)
    typed = hints[0].partition("amlctl ")[2]
    assert data(*typed.split()).code == 0
    assert (data.cwd / "data_blobs/working/y/a.txt").read_text() == "version 2"


def test_a_pull_without_a_path_asks_which(project: Cli, terminal: StartTerminal) -> None:
    for name in ("a", "b"):
        project.write(f"data_blobs/working/{name}/file", name)
    assert project("sync", "working/a", "working/b").code == 0
    shutil.rmtree(project.cwd / "data_blobs/working/b")
    screen = terminal(project.command("sync", "--pull"), project.cwd)
    screen.wait_for("(Enter: none): ")
    screen.type("²\n")
    screen.wait_for("not in the list: ²")
    screen.type("2\n")
    assert screen.finish() == 0, screen.text
    assert (project.cwd / "data_blobs/working/b/file").read_text() == "b"
