"""The JSON of every command: one document on stdout, with the fields that others rely on."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

SCRIPT = """
import pathlib, os
print("hello")
pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"], "result.txt").write_text("42")
"""


@pytest.fixture
def data(project: Cli) -> Cli:
    for name in ("a.txt", "b/c.txt"):
        project.write(f"data_blobs/working/x/{name}", name)
    return project


def test_init(folder: Cli) -> None:
    document = folder.json("init")
    assert ".amlctl.toml" in document["created"]
    assert ".amlctl.toml" in folder.json("init")["kept"]


def test_sync(data: Cli) -> None:
    document = data.json("sync", "data_blobs/working/x")
    assert (document["dataset"], document["files"], document["added"]) == ("working/x", 2, 2)
    again = data.json("sync", "working/x")
    assert (again["previous"], again["unchanged"], again["uploaded_bytes"]) == (document["snapshot"], 2, 0)


def test_several_paths(data: Cli) -> None:
    data.write("data_blobs/working/y/file", "1")
    document = data.json("sync", "data_blobs/working/x", "data_blobs/working/y/")
    assert [one["dataset"] for one in document["datasets"]] == ["working/x", "working/y"]


def test_dry_run_and_pull(data: Cli) -> None:
    foreseen = data.json("sync", "--dry-run", "data_blobs/working/x")
    snapshot = data.json("sync", "data_blobs/working/x")["snapshot"]
    assert foreseen["snapshot"] == snapshot
    (data.cwd / "data_blobs/working/x/a.txt").write_text("changed")
    data.json("sync", "data_blobs/working/x")
    data.json("sync", "--pull", "--snapshot", snapshot[:8], "data_blobs/working/x")
    assert (data.cwd / "data_blobs/working/x/a.txt").read_text() == "a.txt"


def test_status(data: Cli) -> None:
    data.json("sync", "data_blobs/working/x")
    (data.cwd / "data_blobs/working/x/a.txt").unlink()
    data.write("data_blobs/working/x/new.txt")
    document = data.json("status")
    assert document["datasets"][0]["new"] == ["new.txt"]
    assert document["datasets"][0]["deleted"] == ["a.txt"]


def test_status_of_several_of_which_one_fails(data: Cli) -> None:
    data.json("sync", "working/x")
    answer = data("status", "working/missing", "working/x", "--json")
    assert answer.code == 4
    assert [one["dataset"] for one in answer.document["datasets"]] == ["working/x"]
    assert [one["kind"] for one in answer.document["errors"]] == ["not_found"]
    answer = data("status", "working/missing", "working/x")
    assert (answer.code, answer.out) == (4, "working/x  up to date\n")
    assert "dataset working/missing not found" in answer.err
    assert data("status", "working/missing", "working/none").out == ""
    os.mkfifo(data.cwd / "data_blobs/working/a-fifo")
    for command in ("status", "sync"):
        answer = data(command, "working/a-fifo", "working/x", "--json")
        assert (answer.code, len(answer.document["datasets"]), answer.document["not_tried"]) == (2, 1, [])


def test_status_knows_what_runs_have_published(data: Cli) -> None:
    data.json("sync", "working/x")
    data.write(
        "pipeline/make.py",
        """
        from file_paths import working_dir
        (working_dir() / "made").mkdir(parents=True)
        (working_dir() / "made" / "file").write_text("made")
        """,
    )
    data.json("submit", "make.py", "--produces", "working/made", "--env-from", "current")
    found = {one["dataset"]: one for one in data.json("status")["datasets"]}
    assert {name: one["here"] for name, one in found.items()} == {"working/made": False, "working/x": True}
    assert "working/made  not on this machine" in data("status").out
    explained = data.json("why", "data_blobs/working/made/file")
    assert (explained["dataset"], explained["state"]) == ("working/made", "deleted")
    shutil.rmtree(data.cwd / ".amlctl/store/datasets/working/made")
    assert [one["dataset"] for one in data.json("status")["datasets"]] == ["working/x"]


def test_suggested_commands_name_the_same_store(data: Cli, tmp_path: Path) -> None:
    there = f"--store {tmp_path / 'there'}"
    data.json("sync", *there.split(), "working/x")
    shutil.rmtree(data.cwd / "data_blobs/working/x")
    answer = data("sync", *there.split(), "working/x", "working/none", "--json")
    assert answer.document["errors"][0]["hint"] == f"amlctl sync {there} --pull data_blobs/working/x"
    answer = data("--workspace", "local", "sync", *there.split(), "working/x")
    assert f"hint: amlctl --workspace local sync {there} --pull data_blobs/working/x\n" in answer.err
    answer = data("sync", "--pull", "--snapshot", "f" * 32, *there.split(), "working/x")
    assert f"hint: amlctl dataset show {there} working/x lists the snapshots" in answer.err
    data.json("sync", "--pull", *there.split(), "working/x")
    data.write("data_blobs/working/x/a.txt", "changed")
    answer = data("sync", "--pull", *there.split(), "working/x")
    assert f"amlctl sync {there} --pull --theirs --snapshot" in answer.err


def test_a_conflict(data: Cli) -> None:
    data.json("sync", "data_blobs/working/x")
    other = data.cwd.parent / "other"
    other.mkdir()
    second = Cli(other, data.warm)
    second("init")
    url = f"file://{data.cwd}/.amlctl/store"
    second.json("sync", "--pull", "working/x", "--store", url)
    (other / "data_blobs/working/x/a.txt").write_text("theirs")
    second.json("sync", "working/x", "--store", url)
    (data.cwd / "data_blobs/working/x/a.txt").write_text("ours!")
    answer = data("sync", "working/x", "--json")
    assert answer.code == 5
    assert answer.document["error"]["kind"] == "conflict"
    assert answer.document["error"]["details"] == ["a.txt"]


def test_names_that_are_not_text(data: Cli) -> None:
    odd = os.fsencode(data.cwd) + b"/data_blobs/working/x/caf\xe9\n.txt"
    try:
        with open(odd, "wb") as file:
            file.write(b"1")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    document = data.json("status", "working/x")
    assert "caf\udce9\n.txt" in document["datasets"][0]["new"]
    assert "caf\\xe9\\n.txt" in data("status", "working/x").out


def test_names_do_not_depend_on_the_locale(data: Cli) -> None:
    data.write("data_blobs/working/x/é/日本.txt", "1")
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    data.json("sync", "working/x")
    data.write("data_blobs/working/x/more.txt", "1")
    document = data("status", "--json", variables=ascii_only).document
    assert [document["datasets"][0][kind] for kind in ("new", "modified", "deleted")] == [["more.txt"], [], []]
    assert data("sync", "working/x", variables=ascii_only).code == 0
    shutil.rmtree(data.cwd / "data_blobs/working/x")
    assert data("sync", "--pull", "working/x", variables=ascii_only).code == 0
    assert (data.cwd / "data_blobs/working/x/é/日本.txt").read_text() == "1"


def test_why(data: Cli) -> None:
    data.write("data_blobs/working/x/.amlctlignore", "*.tmp\n")
    data.write("data_blobs/working/x/a.tmp")
    data.json("sync", "working/x")
    ignored = data.json("why", "data_blobs/working/x/a.tmp")
    assert (ignored["is_ignored"], ignored["rule"], ignored["rule_line"]) == (True, "*.tmp", 1)
    kept = data.json("why", "data_blobs/working/x/a.txt")
    assert (kept["is_ignored"], kept["dataset"]) == (False, "working/x")
    assert kept["content_id"]


def test_a_run(project: Cli) -> None:
    project.write("pipeline/train.py", SCRIPT)
    answer = project("submit", "train.py", "--env-from", "current", "--json")
    assert answer.code == 0, answer
    document = answer.document
    run = document["run"]
    assert (document["status"], document["exit_code"]) == ("Completed", 0)
    assert document["outputs"] == f"outputs/{run}"
    assert (project.cwd / document["outputs"] / "result.txt").read_text() == "42"
    assert "hello" in answer.err
    assert "hello" not in answer.out

    listed = project.json("runs", "list")["runs"]
    assert [one["run"] for one in listed] == [run]
    assert project.json("runs") == {"runs": listed}
    shown = project.json("runs", "show", "@last")
    assert (shown["run"], shown["status"]) == (run, "Completed")
    assert project.json("logs", run)["log"] == "hello\n"
    assert project.json("logs", run[:8], "-f")["status"] == "Completed"
    fetched = project.json("fetch", run)
    assert (fetched["files"], fetched["downloaded_files"]) == (1, 0)
    assert project.json("cancel", run)["status"] == "Completed"
    assert project.json("runs", "open", run)["place"].endswith(run)
    assert project.json("runs", "delete", run, "--yes") == {"deleted": [run]}
    assert project.json("runs") == {"runs": []}


def test_a_run_that_fails(project: Cli) -> None:
    project.write("pipeline/train.py", "raise SystemExit(7)")
    answer = project("submit", "train.py", "--env-from", "current", "--json")
    assert answer.code == 1
    assert (answer.document["status"], answer.document["exit_code"]) == ("Failed", 7)


def test_compare(project: Cli) -> None:
    project.write("pipeline/train.py", "")
    project.write("pipeline/base.json", '{"rate": 1}')
    for rate in (1, 2):
        project.json("submit", "train.py", "--config", "base.json", "--set", f"rate={rate}", "--env-from", "current")
    assert "config       base.json\n             rate = 2\n" in project("runs", "show", "@last").out.replace(
        "pipeline/", ""
    )
    document = project.json("runs", "compare", "@2", "@last")
    found = {row["field"]: row["values"] for row in document["differences"]}
    assert found["config.rate"] == [1, 2]


def test_places(project: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMLCTL_ENVIRONMENTS_DIR", str(tmp_path / "environments"))  # those of other tests are elsewhere
    assert {check["name"] for check in project.json("doctor")["checks"]} >= {"project", "settings", "store"}
    environment = project.json("env", "show")
    assert environment["is_ready"] is False
    assert project.json("env", "list") == {"environments": []}
    assert project.json("env", "remove", "--all") == {"removed": [], "bytes": 0, "kept": {}}
    targets = project.json("compute", "list")["compute"]
    assert [target["name"] for target in targets] == ["local"]
    assert project.json("compute", "show", "local")["name"] == "local"
    assert project.json("compute", "create", "local")["is_reused"] is True


def test_store(data: Cli) -> None:
    data.json("sync", "working/x")
    stats = data.json("store", "stats")
    assert [one["dataset"] for one in stats["datasets"]] == ["working/x"]
    first = stats["datasets"][0]["snapshot"]
    (data.cwd / "data_blobs/working/x/later").write_text("more")
    data.json("sync", "working/x")
    snapshots = data.json("store", "stats")["datasets"][0]["snapshots"]
    assert len(snapshots) == 2
    assert snapshots[1]["snapshot"] == first
    assert f"  {first[:12]}  20" in data("store", "stats").out
    assert data.json("sync", "--pull", "--snapshot", first[:12], "working/x")["snapshot"] == first
    assert data.json("store", "gc") == {"keys": [], "bytes": 0, "deleted": False}
    assert data.json("store", "verify")["damaged"] == []


@pytest.mark.parametrize("command", ["stats", "gc", "verify"])
def test_a_missing_store_is_not_an_empty_store(data: Cli, command: str) -> None:
    answer = data("store", command, "--store", "elsewhere")
    assert answer.code == 4
    assert "no store at" in answer.err
    assert not (data.cwd / "elsewhere").exists()


@pytest.mark.parametrize("text", [None, "", "{"])
def test_a_store_without_its_format_is_damaged_and_repaired(data: Cli, text: str | None) -> None:
    data.json("sync", "working/x")
    path = data.cwd / ".amlctl/store/format.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    found = data("store", "verify", "--json")
    assert found.code == 1
    assert [damage["key"] for damage in found.document["damages"]] == ["format.json"]
    for command in ("stats", "gc"):
        answer = data("store", command)
        assert answer.code == 1
        assert "amlctl sync --repair PATH" in answer.err
    data.json("sync", "--repair", "working/x")
    assert data.json("store", "verify")["damaged"] == []


def test_verify_finds_damage(data: Cli) -> None:
    data.json("sync", "working/x")
    for path in [*(data.cwd / ".amlctl/store").glob("packs/*/*"), *(data.cwd / ".amlctl/store").glob("objects/*/*")]:
        path.chmod(0o644)
        path.write_bytes(b"\0" * path.stat().st_size)
    answer = data("store", "verify", "--json")
    assert answer.code == 1
    assert answer.document["damaged"]
    assert data("sync", "working/x", "--verify").code == 1


def test_doctor_fails_outside_a_project(folder: Cli) -> None:
    answer = folder("doctor", "--json")
    assert answer.code == 1
    assert {check["name"]: check["ok"] for check in answer.document["checks"]}["project"] is False


def test_version(folder: Cli) -> None:
    assert folder("--version").out.startswith("amlctl 0.")
    for options in (("--json", "--version"), ("--version", "--json")):
        assert json.loads(folder(*options).out)["version"].startswith("0.")


def test_completion(folder: Cli) -> None:
    """Commands, and what stands behind them, complete without being run."""
    for typed, expected in (("amlctl su", "submit"), ("amlctl runs comp", "compare"), ("amlctl sync --pu", "--pull")):
        words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_AMLCTL_COMPLETE": "complete_bash"}
        assert expected in folder(variables=words).out.split()


def test_runs_scripts_and_datasets_complete(project: Cli) -> None:
    project.write("pipeline/deep/a_script.py", "")
    project.write("data_blobs/working/images/64x64/file")
    run = project.json("submit", "a_script.py", "--env-from", "current")["run"]
    for typed, expected in (
        ("amlctl logs a_s", [run]),
        ("amlctl runs show @", ["@last"]),
        ("amlctl submit --from a_", [run]),
        ("amlctl submit a_", ["a_script.py"]),
        ("amlctl submit deep/", ["deep/a_script.py"]),
        ("amlctl sync work", ["working", "working/images"]),
        ("amlctl sync data_blobs/working/i", ["data_blobs/working/images", "data_blobs/working/images/64x64"]),
    ):
        words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_AMLCTL_COMPLETE": "complete_bash"}
        assert project(variables=words).out.split() == expected


def test_one_of_several_datasets_that_fails_does_not_stop_the_others(data: Cli) -> None:
    paths = ("working/x", "working/missing", "working/y")
    data.write("data_blobs/working/y/f", "1")
    answer = data("sync", *paths, "--json")
    assert answer.code == 4
    document = answer.document
    assert [one["dataset"] for one in document["datasets"]] == ["working/x", "working/y"]
    assert [one["kind"] for one in document["errors"]] == ["not_found"]
    answer = data("sync", *paths)
    assert answer.code == 4
    assert "up to date" in answer.out
    assert "error: data_blobs/working/missing is not on this machine" in answer.err


def test_an_error_of_all_datasets_ends_the_sync_and_results_so_far_are_shown(data: Cli) -> None:
    for name in ("y", "z"):
        data.write(f"data_blobs/working/{name}/f", name)
    data("sync", "working/x")
    data.write(".amlctl/store/datasets/working/y/HEAD", '{"format": 3}')
    answer = data("sync", "working/x", "working/y", "working/z", "--json")
    assert answer.code == 3
    document = answer.document
    assert [one["dataset"] for one in document["datasets"]] == ["working/x"]
    assert [one["kind"] for one in document["errors"]] == ["settings"]
    assert document["not_tried"] == ["working/z"]
    assert "not tried: working/z" in answer.err
    assert "error" in data("sync", "working/y", "working/z", "--json").document


def test_damage_is_reported_with_the_command_that_repairs_it(data: Cli) -> None:
    data("sync", "working/x")
    data.write(".amlctl/store/datasets/working/x/HEAD", "")
    assert data("store", "verify", "--json").document["to_repair"] == ["working/x"]
    hint = "hint: amlctl sync --repair data_blobs/working/x"
    assert hint in data("store", "verify").out
    for command in (("sync", "working/x"), ("status",), ("store", "stats")):
        answer = data(*command)
        assert answer.code == 1
        assert answer.err.splitlines()[0].startswith("error: HEAD of working/x cannot be read")
        assert hint in answer.err
    assert data("sync", "--repair", "working/x").code == 0
    assert data("store", "verify").out.startswith("undamaged")


def test_a_file_in_the_place_of_the_local_state(folder: Cli) -> None:
    folder("init")
    folder.write(".amlctl", "")
    assert folder.json("runs") == {"runs": []}
    failed = [check["name"] for check in folder("doctor", "--json").document["checks"] if not check["ok"]]
    assert failed == ["local state", "store"]


def test_a_dataset_named_like_a_command_stays_as_it_is(project: Cli, tmp_path: Path) -> None:
    """Options of the call belong to the commands that a message names, and to nothing else in it."""
    name = "my amlctl sync notes"
    project.write(f"data_blobs/raw/{name}/a", "1")
    options = ("--workspace", "local")
    assert project("sync", f"raw/{name}", "--store", str(tmp_path / "s"), *options).code == 0
    (project.cwd / f"data_blobs/raw/{name}/a").unlink()
    pulled = project("sync", "--pull", f"raw/{name}", "--store", str(tmp_path / "s"), *options)
    assert pulled.code == 0
    assert f"raw/{name}: kept 1 local change" in pulled.err
    typed = pulled.err.partition("not in the store: ")[2].strip()
    assert shlex.split(typed)[:5] == ["amlctl", "--workspace", "local", "sync", "--store"]
    assert shlex.split(typed)[-1] == f"data_blobs/raw/{name}"
    again = subprocess.run(
        shlex.split(typed.replace("amlctl", f"{shlex.quote(sys.executable)} -m amlctl", 1)),
        cwd=project.cwd,
        check=False,
    )
    assert again.returncode == 0
    assert (project.cwd / f"data_blobs/raw/{name}/a").read_text() == "1"
