"""`amlctl clean`: what takes up space is listed; what the store has too is freed, and nothing else."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from amlctl.localfs.atomic import TEMPORARY_PREFIX
from amlctl.workspaces.local.run_paths import RunPaths
from tests.cli.conftest import Cli, StartTerminal, copy_project, made_project
from tests.support.azurite import Azurite
from tests.support.runs import wait_until
from tests.support.shared_runtime import own_runtime
from tests.support.trees import write_tree
from tests.support.warm_command import WarmCommand

SCRIPT = """
import os, pathlib
print("hello")
pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"], "deep").mkdir()
pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"], "deep/model.bin").write_bytes(b"m" * 50_000)
pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"], "result.txt").write_text("42")
"""
SUBMIT = ("submit", "train.py", "--env-from", "current")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, warm: WarmCommand) -> Cli:
    project = made_project(tmp_path_factory.mktemp("made") / "project", warm)
    project.write("pipeline/train.py", SCRIPT)
    project.json(*SUBMIT)
    return project


@pytest.fixture
def run(project: Cli, made: Cli) -> str:
    """One finished run, fetched."""
    copy_project(made, project)
    return str(project.json("runs", "show", "@last")["run"])


def test_a_list_frees_nothing(project: Cli, run: str) -> None:
    own_runtime(project.cwd / ".amlctl")
    project.write(".amlctl/runtimes/one/file.py", "1")
    document = project.json("clean")
    assert set(document) == {"items", "freed", "freed_bytes", "dry_run"}
    assert {"kind", "name", "path", "bytes", "used_at", "kept"} == set(document["items"][0])
    found = {(item["kind"], item["name"]) for item in document["items"]}
    assert {("outputs", run), ("logs", run), ("caches", "runtimes")} <= found
    assert document["freed"] == []
    assert (project.cwd / f"outputs/{run}/deep/model.bin").exists()
    assert "--outputs" in project("clean").out
    assert project("clean", "--yes").code == 2
    assert project("clean", "--dry-run").out == project("clean").out
    assert project.json("clean", "--older-than", "1h")["items"] == []


def test_outputs_come_back_with_a_fetch(project: Cli, run: str) -> None:
    project.write("outputs/mine.txt", "mine")
    asked = project("clean", "--outputs")
    assert asked.code == 5
    assert "clean --outputs --yes" in asked.err
    assert project.json("clean", "--outputs", "--dry-run")["freed"]
    assert (project.cwd / f"outputs/{run}/result.txt").exists()
    (freed,) = project.json("clean", "--outputs", "--yes")["freed"]
    assert freed["name"] == run
    assert sorted(os.listdir(project.cwd / "outputs")) == ["mine.txt"]
    assert project.json("fetch", run)["downloaded_files"] == 2
    assert (project.cwd / f"outputs/{run}/result.txt").read_text() == "42"


def test_what_would_go_is_listed_once_above_the_question(project: Cli, run: str, terminal: StartTerminal) -> None:
    screen = terminal(project.command("clean", "--outputs"), project.cwd)
    screen.wait_for("Continue?")
    screen.type("n\n")
    assert (screen.finish(), screen.text.count(run)) == (5, 1)


def test_what_was_changed_or_added_stays(project: Cli, run: str) -> None:
    project.write(f"outputs/{run}/result.txt", "corrected by hand")
    project.write(f"outputs/{run}/notes.txt", "mine")
    assert "would be kept: files were changed or added here" in project("clean", "--outputs", "--dry-run").err
    assert project.json("clean", "--outputs", "--dry-run")["freed"] == []
    answer = project("clean", "--outputs", "--yes")
    assert "was kept: files were changed or added here" in answer.err
    assert sorted(os.listdir(project.cwd / f"outputs/{run}")) == ["notes.txt", "result.txt"]


def test_what_lies_behind_a_link_stays(project: Cli, run: str) -> None:
    deep = project.cwd / f"outputs/{run}/deep"
    deep.rename(project.cwd / "elsewhere")
    deep.symlink_to(project.cwd / "elsewhere")
    assert "was kept" in project("clean", "--outputs", "--yes").err
    assert (project.cwd / "elsewhere/model.bin").exists()


def test_outputs_that_the_store_lacks_stay(project: Cli, run: str) -> None:
    index = project.cwd / f".amlctl/store/runs/{run}/outputs.json"
    index.rename(index.with_name("away"))
    assert "was kept: the store does not have them" in project("clean", "--outputs", "--yes").err
    assert (project.cwd / f"outputs/{run}/deep/model.bin").exists()


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"cut")])
def test_outputs_stay_where_the_store_has_lost_one(project: Cli, run: str, harm: Callable[[Path], object]) -> None:
    harm(project.cwd / f".amlctl/store/runs/{run}/outputs/deep/model.bin")
    assert "was kept: the store does not have them" in project("clean", "--outputs", "--yes").err
    assert (project.cwd / f"outputs/{run}/deep/model.bin").exists()


def test_times_that_no_calendar_has(project: Cli, run: str) -> None:
    os.utime(project.cwd / f"outputs/{run}/result.txt", (1e12, 1e12))
    assert project("clean").code == 0
    assert project.json("clean")["items"]


def test_logs_are_read_from_the_store_afterwards(project: Cli, run: str) -> None:
    log = project(*("logs", run)).out
    assert "hello" in log
    (freed,) = project.json("clean", "--logs", "--yes")["freed"]
    assert freed["name"] == run
    assert not (project.cwd / f".amlctl/local/{run}").exists()
    assert "hello" in project("logs", run).out
    assert project.json("runs", "show", run)["status"] == "Completed"


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="shows who waits for a lock")
def test_a_supervisor_that_still_tidies_up_is_waited_for(project: Cli, run: str) -> None:
    paths, locks = RunPaths(project.cwd / ".amlctl", run), Path("/proc/locks")
    with ThreadPoolExecutor(1) as other, open(paths.lock) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        paths.container_of(0).mkdir()
        cleaned = other.submit(project.json, "clean", "--logs", "--yes")
        waiting = f":{os.fstat(lock.fileno()).st_ino} "
        wait_until(lambda: any("->" in line and waiting in line for line in locks.read_text().splitlines()))
        paths.container_of(0).rmdir()
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert [item["name"] for item in cleaned.result()["freed"]] == [run]


def test_a_container_whose_removal_was_killed_is_not_listed(project: Cli, run: str) -> None:
    state_dir = project.cwd / ".amlctl"
    container = RunPaths(state_dir, run).container_of(0)
    write_tree(container, {"pipeline/a": b"a", "b": b"b"})
    program = (
        "import os, signal; from pathlib import Path; from amlctl.localfs.atomic import remove_at_once; "
        "os.unlink = lambda path: os.kill(os.getpid(), signal.SIGKILL); "
        f"remove_at_once(Path({os.fspath(container)!r}))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert [item["kind"] for item in project.json("clean", "--logs", "--yes")["freed"]] == ["logs"]
    assert not [*state_dir.glob(f"{TEMPORARY_PREFIX}*")]


def test_copies_of_data_are_made_again(project: Cli) -> None:
    project.write("pipeline/train.py", SCRIPT)
    project.write("data_blobs/working/x/file", "1")
    submit = (*SUBMIT, "--dataset", "working/x")
    project.json(*submit)
    freed = project.json("clean", "--caches", "--yes")["freed"]
    assert "data" in {item["name"] for item in freed}
    assert not (project.cwd / ".amlctl/data").exists()
    assert project.json(*submit)["status"] == "Completed"

    store = project.cwd / ".amlctl/store"
    store.rename(project.cwd / "away")
    for _ in ("gone", "the empty folder of a share that is not mounted"):
        answer = project("clean", "--caches", "--yes")
        assert (answer.code, "is gone" in answer.err) == (6, True), answer
        assert [*(project.cwd / ".amlctl/data").iterdir()]
        store.mkdir(exist_ok=True)


def test_copies_stay_where_the_store_of_another_workspace_is_gone(project: Cli) -> None:
    project.write("data_blobs/working/x/file", "1")
    project.write(
        ".amlctl.toml",
        "".join(f'[workspaces.{name}]\ncompute = "local"\nstore = "{name}-store"\n' for name in ("local", "other")),
    )
    project.write("pipeline/train.py", SCRIPT)
    project.json(*SUBMIT, "--dataset", "working/x", "--workspace", "other")
    (project.cwd / "other-store").rename(project.cwd / "away")
    answer = project("clean", "--caches", "--yes")
    assert (answer.code, "other-store is gone" in answer.err) == (6, True), answer
    assert [*(project.cwd / ".amlctl/data").iterdir()]


def test_a_run_that_never_started_leaves_nothing(project: Cli, run: str) -> None:
    """As a sweep leaves those that were canceled before: with a folder, and without a process or a log."""
    local = project.cwd / ".amlctl/local"
    for path in (local / run).iterdir():
        path.unlink()
    assert project("clean", "--logs", "--yes").err == ""
    assert not [*local.iterdir()]


def test_only_what_is_old_goes(project: Cli, run: str) -> None:
    assert project.json("clean", "--outputs", "--logs", "--older-than", "1h", "--yes")["freed"] == []
    for path in (project.cwd / f"outputs/{run}").rglob("*"):
        os.utime(path, (time.time() - 7200,) * 2)
    (freed,) = project.json("clean", "--outputs", "--logs", "--older-than", "1h", "--yes")["freed"]
    assert freed["kind"] == "outputs"


def test_an_active_run_keeps_what_it_uses(project: Cli, tmp_path: Path) -> None:
    project.write(
        "pipeline/wait.py", f"import os, time\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.05)"
    )
    run = project.json("submit", "wait.py", "--env-from", "current", "--detach")["run"]
    items = project.json("clean")["items"]
    assert {item["kept"] for item in items if item["name"] == run} == {"the run is active"}
    assert all(item["kept"] for item in items if item["kind"] == "caches")
    assert project.json("clean", "--caches", "--logs", "--yes")["freed"] == []
    (tmp_path / "go").touch()
    project("logs", run, "-f")
    assert project.json("runs", "show", run)["status"] == "Completed"


@pytest.fixture
def remote(project: Cli, azurite: Azurite) -> dict[str, str]:
    url = f"{azurite.url}/{azurite.new_container()}"
    project.write(".amlctl.toml", f'[workspaces.local]\ncompute = "local"\nstore = "{url}"\n[cache]\nlimit = "1MiB"\n')
    project.write("pipeline/train.py", SCRIPT)
    return {"AZURE_STORAGE_KEY": azurite.key}


def test_the_copies_of_a_remote_store_are_bounded(project: Cli, remote: dict[str, str]) -> None:
    for name in ("one", "two"):
        path = project.cwd / f"data_blobs/working/{name}/large"
        path.parent.mkdir(parents=True)
        path.write_bytes(os.urandom(900_000))
        answer = project(*SUBMIT, "--dataset", f"working/{name}", variables=remote)
        assert answer.code == 0, answer
        for value in (project.cwd / ".amlctl/node-stores").rglob("*"):
            if value.is_file():
                os.utime(value, (time.time() - 7200,) * 2)
    assert project(*SUBMIT, variables=remote).code == 0
    left = [path for path in (project.cwd / ".amlctl/node-stores").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in left) < 1 << 20
    space = {check["name"]: check for check in project("doctor", "--json", variables=remote).document["checks"]}[
        "space"
    ]
    assert not space["ok"]
    assert space["hint"] == "amlctl clean"
    answer = project("clean", "--caches", "--yes", variables=remote)
    assert answer.code == 0, answer
    assert not [*(project.cwd / ".amlctl/node-stores").rglob("*")]
    assert project(*SUBMIT, "--dataset", "working/one", variables=remote).code == 0


def test_a_failed_run_leaves_no_empty_folder(project: Cli) -> None:
    project.write("pipeline/fails.py", "raise SystemExit(3)")
    answer = project("submit", "fails.py", "--env-from", "current")
    assert answer.code == 1
    assert not [*(project.cwd / "outputs").iterdir()]
