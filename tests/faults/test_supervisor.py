"""Supervisors, runtimes and scripts that are killed: the next command sees the true state, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from amlctl.core.message import AGAIN, Message
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState
from amlctl.core.settings import WorkspaceSettings
from amlctl.errors import Conflict, ServiceUnavailable
from amlctl.localfs.project import Project
from amlctl.runs.records import load_local_record, load_record
from amlctl.runtime.process_tree import end_session, find_process, identity_of, is_alive
from amlctl.stores.directory import DirectoryStore
from amlctl.workspaces.local.ending import Ending, finish
from amlctl.workspaces.local.recovery import recover
from amlctl.workspaces.local.run_paths import RunPaths
from amlctl.workspaces.local.workspace import LocalWorkspace
from tests.contract.test_local import QUICK, is_running, local_bench
from tests.contract.workspace import WAITS_FOR_A_SIGNAL, Bench
from tests.support.faulty_store import Call, FaultyStore
from tests.support.runs import wait_until
from tests.support.supervised_runs import (
    CONDA_FILE,
    SLEEPER,
    assert_failed_for_want_of_a_supervisor,
    kill_supervisor,
    pids_of,
    supervisor_of,
)


def test_killed_while_running(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    run = bench.start(SLEEPER)
    pids = pids_of(bench, run)
    kill_supervisor(bench, run)
    assert all(is_running(pid) for pid in pids), "the script does not depend on its supervisor"
    record = bench.workspace.read(run)
    assert_failed_for_want_of_a_supervisor(record, "Running")
    assert not any(is_running(pid) for pid in pids)
    assert (bench.outputs(run, tmp_path / "o") / "model.txt").read_text() == "saved"
    log = bench.log(run)
    assert b"ready\n" in log
    assert log.endswith(record.error["message"].encode() + b"\n")  # type: ignore[index]
    assert bench.store.get(f"runs/{run}/logs/std_log.txt") == log
    assert json.loads(bench.store.get(f"runs/{run}/record.json"))["status"] == "Failed"


def _about_to_end(tmp_path: Path) -> tuple[Bench, RunPaths, RunRecord]:
    """A run whose processes have ended, and whose supervisor is dead."""
    bench = local_bench(tmp_path)
    run = bench.start(SLEEPER)
    pids = pids_of(bench, run)
    script = find_process(pids[0])
    assert script is not None
    kill_supervisor(bench, run)
    for pid in (script.parent, *pids):  # the runtime first: it would save what its script has left
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, (script.parent, *pids))), what="the end of its processes")
    paths = RunPaths(bench.project.state_dir, run)
    record = load_local_record(paths.state_dir, run)
    assert record is not None
    return bench, paths, record


@pytest.mark.parametrize("what", ["outputs", "record"])
def test_results_that_cannot_be_saved_are_saved_by_the_next_reader(tmp_path: Path, what: str) -> None:
    bench, paths, record = _about_to_end(tmp_path)
    run = record.run

    def refuse(call: Call) -> None:
        if what in call.key and (what == "outputs" or call.method == "put"):
            raise ServiceUnavailable("no network", hint=Message("find it, then ", AGAIN, "; nothing is lost"))

    store = FaultyStore(bench.store, refuse)
    ended = finish(paths, store, record, Ending(RunState.COMPLETED, 0))
    assert (ended.status, (ended.error or {})["kind"]) == ("Failed", "unavailable")
    assert str(paths.node_folders(0).outputs_dir) in (ended.error or {})["message"]
    assert (ended.error or {})["hint"] == f"find it, then amlctl fetch {run}; nothing is lost"
    stored = load_record(bench.store, run)
    assert stored is not None
    assert not stored.is_final
    log, noted = paths.log.read_bytes(), paths.record.read_bytes()
    assert recover(paths, store) == ended, "a try that fails as the one before changes nothing"
    assert (paths.log.read_bytes(), paths.record.read_bytes()) == (log, noted)
    [listed] = bench.workspace.list_runs()
    assert (listed.status, listed.error, listed.exit_code) == ("Completed", None, 0)
    assert (bench.outputs(run, tmp_path / "o") / "model.txt").read_text() == "saved"
    assert not paths.container.exists()


def test_a_record_that_the_store_refuses_for_good_does_not_keep_the_run_from_ending(tmp_path: Path) -> None:
    bench, paths, record = _about_to_end(tmp_path)

    def refuse(call: Call) -> None:
        if call.method == "put" and call.key.endswith("record.json"):
            raise Conflict("values of the container are immutable")

    ended = finish(paths, FaultyStore(bench.store, refuse), record, Ending(RunState.COMPLETED, 0))
    assert ended.status == "Completed"
    assert load_local_record(paths.state_dir, record.run) == ended
    assert "are immutable" in paths.log.read_text()


@pytest.mark.parametrize("what", ["the run's folder", "the state"])
def test_a_run_ends_when_its_folder_is_deleted(tmp_path: Path, what: str) -> None:
    bench = local_bench(tmp_path)
    run = bench.start(SLEEPER)
    pids = [supervisor_of(bench, run), *pids_of(bench, run)]
    state_dir = bench.project.state_dir
    deleted = RunPaths(state_dir, run).folder if what == "the run's folder" else state_dir

    def is_deleted() -> bool:  # its supervisor may write a file just while it is deleted: once more, then
        shutil.rmtree(deleted, ignore_errors=True)
        return not deleted.exists()

    wait_until(is_deleted, what=f"the end of {deleted}")
    wait_until(lambda: not any(is_running(pid) for pid in pids), what="the end of its processes")
    stored = load_record(bench.store, run)
    assert stored is not None
    assert stored.status == "Failed"
    if what == "the state":
        assert not state_dir.exists(), "it is not made again"
    else:
        record = bench.workspace.read(run)
        assert record.status == "Failed"
        assert record.error is not None
        assert record.error["message"].endswith("was deleted or moved")


def test_killed_in_the_queue(tmp_path: Path) -> None:
    bench = local_bench(tmp_path, slots=1)
    first = bench.start(WAITS_FOR_A_SIGNAL)
    bench.wait_for_log(first, b"ready")
    queued, last = bench.start("print('never')"), bench.start("print('after')")
    kill_supervisor(bench, queued)
    bench.workspace.cancel(first)
    assert bench.finished(last).status == "Completed"
    assert_failed_for_want_of_a_supervisor(bench.workspace.read(queued), "Queued")
    assert b"never" not in bench.log(queued)


def _preparing(tmp_path: Path) -> tuple[Bench, str, int]:
    """A run whose environment is being made, and the process id of the tool."""
    tools, pid_file = tmp_path / "tools", tmp_path / "pid"
    tools.mkdir()
    tool = tools / "micromamba"
    tool.write_text(f"#!/bin/sh\necho $$ > {pid_file}.new; mv {pid_file}.new {pid_file}\nexec sleep 600\n")
    tool.chmod(0o755)
    bench = local_bench(tmp_path, variables={"PATH": f"{tools}:{os.environ['PATH']}"})
    run = bench.start("print('never')", environment="0" * 32, environment_content=CONDA_FILE)
    wait_until(pid_file.exists, what="the making of the environment")
    return bench, run, int(pid_file.read_text())


def test_killed_while_preparing(tmp_path: Path) -> None:
    bench, run, tool = _preparing(tmp_path)
    kill_supervisor(bench, run)
    assert_failed_for_want_of_a_supervisor(bench.workspace.read(run), "Preparing")
    assert not is_running(tool)


def test_cancel_while_preparing(tmp_path: Path) -> None:
    bench, run, tool = _preparing(tmp_path)
    bench.workspace.cancel(run)
    assert bench.finished(run).status == "Canceled"
    assert not is_running(tool)


def test_environment_that_cannot_be_made(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    tool = tools / "micromamba"
    tool.write_text("#!/bin/sh\necho 'ERROR: nothing provides torch 99'\nexit 3\n")
    tool.chmod(0o755)
    bench = local_bench(tmp_path, variables={"PATH": f"{tools}:{os.environ['PATH']}"})
    record = bench.run("print('never')", environment="0" * 32, environment_content=CONDA_FILE)
    assert record.status == "Failed"
    assert record.error is not None
    assert record.error["kind"] == "environment"
    assert "nothing provides torch 99" in record.error["message"]
    assert b"nothing provides torch 99" in bench.log(record.run)


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4])
def test_killed_a_little_later(tmp_path: Path, seconds: float) -> None:
    bench = local_bench(tmp_path)
    run = bench.start("print('x' * 10)")
    pid = supervisor_of(bench, run)
    time.sleep(seconds)  # the moment itself is what is tested
    if is_running(pid):
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_running(pid), what="the supervisor's death")
    record = bench.workspace.read(run)
    assert record.status in ("Completed", "Failed"), record
    assert record.status == "Completed" or (record.error or {})["kind"] == "supervisor"
    assert bench.store.info(f"runs/{run}/outputs.json") is not None
    assert json.loads(bench.store.get(f"runs/{run}/record.json")) == record.to_json()


def test_readers_at_once_agree(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    run = bench.start(SLEEPER)
    pids = pids_of(bench, run)
    kill_supervisor(bench, run)
    together = threading.Barrier(4)

    def read(_: int) -> RunRecord:
        workspace = LocalWorkspace(bench.project, WorkspaceSettings("local"), bench.store, timing=QUICK)
        together.wait()
        return workspace.read(run)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, range(4)))
    assert all(record == found[0] for record in found)
    assert_failed_for_want_of_a_supervisor(found[0], "Running")
    assert bench.log(run).count(b"Failed: ") == 1
    assert not any(is_running(pid) for pid in pids)


def test_list_and_wait_notice_too(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    run = bench.start(SLEEPER)
    pids_of(bench, run)
    kill_supervisor(bench, run)
    bench.workspace.wait(run, 1 << 60, 3600.0)
    assert [record.status for record in bench.workspace.list_runs()] == ["Failed"]


def test_the_next_run_in_the_slot_ends_what_was_left_there(tmp_path: Path) -> None:
    bench = local_bench(tmp_path, slots=1)
    first = bench.start(SLEEPER)
    pids = pids_of(bench, first)
    second = bench.start(WAITS_FOR_A_SIGNAL)
    assert all(is_running(pid) for pid in pids)
    kill_supervisor(bench, first)
    bench.wait_for_log(second, b"ready")
    assert not any(is_running(pid) for pid in pids)
    assert_failed_for_want_of_a_supervisor(bench.workspace.read(first), "Running")
    bench.workspace.cancel(second)
    bench.finished(second)


def test_a_copy_of_the_project_leaves_its_active_runs_alone(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    run = bench.start(SLEEPER)
    pids = pids_of(bench, run)
    shutil.copytree(bench.project.root, tmp_path / "copy")
    shutil.copytree(tmp_path / "store", tmp_path / "copied-store")
    stores = [bench.store, DirectoryStore(tmp_path / "copied-store")]
    copy = Project(tmp_path / "copy")
    shared, own = (LocalWorkspace(copy, WorkspaceSettings("local"), store, timing=QUICK) for store in stores)
    assert [record.status for record in shared.list_runs()] == ["Running"]
    with pytest.raises(Conflict, match="is Running in another project folder"):
        own.cancel(run)
    assert all(is_running(pid) for pid in pids)
    assert bench.workspace.read(run).status == "Running"

    bench.workspace.cancel(run)
    bench.finished(run)
    wait_until(lambda: not is_running(supervisor_of(bench, run)), what="the end of the supervisor")
    failed = own.read(run)
    assert (failed.status, (failed.error or {})["message"]) == (
        "Failed",
        "the project was copied here while the run was Running, so how it ended is not known here",
    )


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("store", " was deleted or moved"),
        (
            "project/.amlctl/store",
            "the project was moved while the run was Running, and its processes lost their folders",
        ),
    ],
)
def test_a_run_of_a_project_that_is_moved_fails_with_that_reason(tmp_path: Path, where: str, reason: str) -> None:
    bench = local_bench(tmp_path, store=DirectoryStore(tmp_path / where))
    run = bench.start(SLEEPER)
    pids_of(bench, run)
    supervisor = supervisor_of(bench, run)
    bench.project.root.rename(tmp_path / "elsewhere")
    wait_until(lambda: not is_running(supervisor), what="the end of the supervisor")
    store = DirectoryStore(tmp_path / where.replace("project", "elsewhere"))
    moved = LocalWorkspace(Project(tmp_path / "elsewhere"), WorkspaceSettings("local"), store, timing=QUICK)
    failed = moved.read(run)
    assert failed.status == "Failed"
    assert (failed.error or {})["message"].endswith(reason)


def test_terminated_supervisor_cancels_its_run(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    run = bench.start(WAITS_FOR_A_SIGNAL)
    bench.wait_for_log(run, b"ready")
    os.kill(supervisor_of(bench, run), signal.SIGTERM)
    assert bench.finished(run).status == "Canceled"
    assert (bench.outputs(run, tmp_path / "o") / "last.txt").read_text() == "kept"


def test_killed_runtime(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    run = bench.start("import os; print('runtime', os.getppid())\n" + SLEEPER.replace("\n    ", "\n"))
    pids = pids_of(bench, run)
    runtime = int(bench.log_so_far(run).splitlines()[0].split()[1])
    os.kill(runtime, signal.SIGKILL)
    record = bench.finished(run)
    assert (record.status, record.exit_code) == ("Failed", 137)
    assert record.error is not None
    assert "SIGKILL" in record.error["message"]
    assert not any(is_running(pid) for pid in pids)
    assert (bench.outputs(run, tmp_path / "o") / "model.txt").read_text() == "saved"


def test_a_store_that_vanishes_fails_the_run_and_keeps_the_container(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    run = bench.start(WAITS_FOR_A_SIGNAL)
    bench.wait_for_log(run, b"ready")
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    (tmp_path / "store").write_text("in the way")
    bench.workspace.cancel(run)
    record = bench.finished(run)
    assert record.status == "Failed"
    assert record.error is not None
    assert "is gone" in record.error["message"]
    places = RunPaths(bench.project.state_dir, run)
    assert (places.node_folders(0).outputs_dir / "last.txt").read_text() == "kept"


@pytest.mark.parametrize("is_canceled", [False, True])
def test_a_record_that_cannot_be_written_is_written_later(tmp_path: Path, is_canceled: bool) -> None:
    bench = local_bench(tmp_path)
    go = tmp_path / "go"
    run = bench.start(f"""
        import os, time
        print("pids", os.getpid())
        print("ready")
        while not os.path.exists({str(go)!r}):
            time.sleep(0.02)
    """)
    [script] = pids_of(bench, run)
    supervisor = supervisor_of(bench, run)
    places = RunPaths(bench.project.state_dir, run)
    kept = places.record_dir.rename(tmp_path / "kept")
    places.record_dir.write_text("in the way")
    if is_canceled:
        places.cancel_request.touch()
    else:
        go.touch()
    wait_until(lambda: not is_running(script), what="the script's end")
    assert is_running(supervisor)
    places.record_dir.unlink()
    kept.rename(places.record_dir)
    record = bench.finished(run)
    assert record.status == ("Canceled" if is_canceled else "Completed")
    assert json.loads(bench.store.get(f"runs/{run}/record.json"))["status"] == record.status


def test_a_supervisor_that_waits_to_write_the_record_ends_on_request(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    run = bench.start(SLEEPER)
    script = pids_of(bench, run)[0]
    supervisor = supervisor_of(bench, run)
    places = RunPaths(bench.project.state_dir, run)
    kept = places.record_dir.rename(tmp_path / "kept")
    places.record_dir.write_text("in the way")
    places.cancel_request.touch()
    wait_until(lambda: not is_running(script), what="the script's end")
    os.kill(supervisor, signal.SIGTERM)
    wait_until(lambda: not is_running(supervisor), what="the supervisor's end")
    places.record_dir.unlink()
    kept.rename(places.record_dir)
    # It had put the end into the store, which is what counts: nothing may make another one of it.
    assert bench.workspace.read(run).status == "Canceled"
    assert (bench.outputs(run, tmp_path / "o") / "model.txt").read_text() == "saved"


def test_a_number_that_belongs_to_somebody_else_is_left_alone() -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        identity = identity_of(stranger.pid)
        assert identity is not None
        assert is_alive(identity)
        assert end_session(identity._replace(started=identity.started + 1)) == 0
        assert end_session(identity._replace(machine="00000000")) == 0
        assert stranger.poll() is None
        assert end_session(identity) == 1
    finally:
        stranger.kill()
        stranger.wait()
    assert not is_alive(identity)


def test_a_record_that_a_power_cut_has_damaged_comes_back_from_the_store(tmp_path: Path) -> None:
    bench = local_bench(tmp_path, slots=1)
    ended = bench.run("print('done')").run
    RunPaths(bench.project.state_dir, ended).record.write_bytes(b"")
    # Who had the slot before is looked at by the next one, whose own run does not depend on it.
    assert bench.run("print('next')").status == "Completed"
    assert bench.workspace.read(ended).status == "Completed"
    assert ended in [record.run for record in bench.workspace.list_runs()]
    run = bench.start(SLEEPER)
    pids_of(bench, run)
    kill_supervisor(bench, run)
    RunPaths(bench.project.state_dir, run).record.write_bytes(b"")
    assert_failed_for_want_of_a_supervisor(bench.workspace.read(run), "Running")


def test_a_record_that_is_lost_altogether_costs_no_other_run(tmp_path: Path) -> None:
    bench = local_bench(tmp_path, slots=1)
    ended = bench.run("print('done')").run
    RunPaths(bench.project.state_dir, ended).record.write_bytes(b"")
    bench.store.put(f"runs/{ended}/record.json", b"", replace=True)
    assert bench.run("print('next')").status == "Completed"


def test_hangup_ends_a_run_as_a_cancel_does(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    run = bench.start(WAITS_FOR_A_SIGNAL)
    bench.wait_for_log(run, b"ready")
    os.kill(supervisor_of(bench, run), signal.SIGHUP)
    assert bench.finished(run).status == "Canceled"
    assert (bench.outputs(run, tmp_path / "o") / "last.txt").read_text() == "kept"
