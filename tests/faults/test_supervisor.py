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

from amlctl.core.run import RunRecord
from amlctl.core.settings import WorkspaceSettings
from amlctl.runtime.process_tree import all_processes, end_session, identity_of, is_alive
from amlctl.workspaces.local.run_paths import RunPaths
from amlctl.workspaces.local.workspace import LocalWorkspace
from tests.contract.test_local import QUICK, is_running, local_bench
from tests.contract.workspace import WAITS_FOR_A_SIGNAL, Bench
from tests.support.runs import wait_until

SLEEPER = """
    import os, subprocess, sys, time
    code = "import time; time.sleep(600)"
    inside = subprocess.Popen([sys.executable, "-c", code])
    outside = subprocess.Popen([sys.executable, "-c", code], process_group=0)
    open(os.path.join(os.environ["AMLCTL_OUTPUTS_DIR"], "model.txt"), "w").write("saved")
    print("pids", os.getpid(), inside.pid, outside.pid)
    print("ready")
    time.sleep(600)
"""
CONDA_FILE = "name: e\ndependencies:\n  - python=3.11\n  - numpy\n  - pip:\n      - xxhash\n"


def supervisor_of(bench: Bench, run: str) -> int:
    places = RunPaths(bench.project.state_dir, run)
    wait_until(places.supervisor.exists, what=f"the supervisor of {run}")
    return int(json.loads(places.supervisor.read_text())["process"])


def kill_supervisor(bench: Bench, run: str) -> None:
    pid = supervisor_of(bench, run)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid), what="the supervisor's death")


def pids_of(bench: Bench, run: str) -> list[int]:
    bench.wait_for_log(run, b"ready")
    line = next(line for line in bench.log_so_far(run).splitlines() if line.startswith(b"pids"))
    return [int(pid) for pid in line.split()[1:]]


def assert_failed_for_want_of_a_supervisor(record: RunRecord, state: str) -> None:
    assert record.status == "Failed"
    assert record.error is not None
    assert record.error["kind"] == "supervisor"
    assert record.error["message"].endswith(f"while the run was {state}")
    assert (record.exit_code is None) == (state != "Running")  # that of a script, if there was one


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
    if what == "the run's folder":
        record = bench.workspace.read(run)
        assert record.status == "Failed"
        assert record.error is not None
        assert record.error["message"].endswith("was deleted")


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


def test_killed_while_preparing(tmp_path: Path) -> None:
    tools, pid_file = tmp_path / "tools", tmp_path / "pid"
    tools.mkdir()
    tool = tools / "micromamba"
    tool.write_text(f"#!/bin/sh\necho $$ > {pid_file}.new; mv {pid_file}.new {pid_file}\nexec sleep 600\n")
    tool.chmod(0o755)
    bench = local_bench(tmp_path, variables={"PATH": f"{tools}:{os.environ['PATH']}"})
    run = bench.start("print('never')", environment="0" * 32, environment_content=CONDA_FILE)
    wait_until(pid_file.exists, what="the making of the environment")
    kill_supervisor(bench, run)
    assert_failed_for_want_of_a_supervisor(bench.workspace.read(run), "Preparing")
    assert not is_running(int(pid_file.read_text()))


def test_cancel_while_preparing(tmp_path: Path) -> None:
    tools, pid_file = tmp_path / "tools", tmp_path / "pid"
    tools.mkdir()
    tool = tools / "micromamba"
    tool.write_text(f"#!/bin/sh\necho $$ > {pid_file}.new; mv {pid_file}.new {pid_file}\nexec sleep 600\n")
    tool.chmod(0o755)
    bench = local_bench(tmp_path, variables={"PATH": f"{tools}:{os.environ['PATH']}"})
    run = bench.start("print('never')", environment="0" * 32, environment_content=CONDA_FILE)
    wait_until(pid_file.exists, what="the making of the environment")
    bench.workspace.cancel(run)
    assert bench.finished(run).status == "Canceled"
    assert not is_running(int(pid_file.read_text()))


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
    assert "cannot be saved" in record.error["message"]
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


REOPENS = """
    import os, subprocess, sys
    print("first")
    open("/dev/stdout", "w").write("second\\n")
    open("/proc/self/fd/1", "w").write("third\\n")
    subprocess.run("echo fourth > /dev/stderr; echo fifth | tee /dev/stderr > /dev/null; echo sixth 1>&2", shell=True)
    with open("/dev/stderr", "a") as file:
        file.write("seventh\\n")
    try:
        os.ftruncate(1, 0)
    except OSError:
        print("eighth")
"""
ORDINALS = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth"]


@pytest.mark.skipif(sys.platform != "linux", reason="what /dev/stdout is differs")
@pytest.mark.parametrize("processes", [1, 2])
def test_a_log_is_never_emptied_by_its_writer(tmp_path: Path, processes: int) -> None:
    bench = local_bench(tmp_path)
    kind = "pytorch" if processes > 1 else None
    record = bench.run(REOPENS, distribution=kind, processes=processes)
    for name in bench.workspace.log_names(record.run):
        chunk = bench.workspace.read_log(record.run, 0, name=name)
        assert chunk.data.decode().split() == ORDINALS


COUNTS = """
    import os, sys, time
    out = os.environ["AMLCTL_OUTPUTS_DIR"]
    for number in range(1000000):
        print(f"line {number}", flush=True)
        if number == 1000:
            print("ready")
        if number % 100 == 0:
            with open(os.path.join(out, "printed.new"), "w") as file:
                file.write(str(number))
            os.rename(os.path.join(out, "printed.new"), os.path.join(out, "printed"))
"""


def test_a_killed_supervisor_costs_no_line_and_does_not_stop_the_script(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    run = bench.start(COUNTS)
    wait_until(lambda: b"ready" in RunPaths(bench.project.state_dir, run).log.read_bytes(), what="the first lines")
    kill_supervisor(bench, run)
    printed = RunPaths(bench.project.state_dir, run).node_folders(0).outputs_dir / "printed"
    before = int(printed.read_text())
    wait_until(lambda: int(printed.read_text()) > before + 5000, what="more lines")
    assert_failed_for_want_of_a_supervisor(bench.workspace.read(run), "Running")
    last = int((bench.outputs(run, tmp_path / "o") / "printed").read_text())
    lines = [line for line in bench.log(run).splitlines() if line.startswith(b"line ")]
    assert len(lines) > last
    assert lines[: last + 1] == [b"line %d" % number for number in range(last + 1)]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_pump_is_replaced(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    go = tmp_path / "go"
    run = bench.start(f"""
        import os, time
        print("ready")
        while not os.path.exists({str(go)!r}):
            time.sleep(0.02)
        print("after")
    """)
    bench.wait_for_log(run, b"ready")
    supervisor = supervisor_of(bench, run)
    pumps = [one.pid for one in all_processes().values() if one.parent == supervisor and one.session == one.pid]
    assert len(pumps) == 1
    os.kill(pumps[0], signal.SIGKILL)
    go.touch()
    assert bench.finished(run).status == "Completed"
    assert bench.log(run) == b"ready\nafter\n"


LEAVES = """
    import os, signal, subprocess, sys, time
    sleeps = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    own = subprocess.Popen([sys.executable, "-c", sleeps], start_new_session=True)
    bare = subprocess.Popen([sys.executable, "-I", "-S", "-c", sleeps], env={}, start_new_session=True)
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(write, str(os.getpid()).encode())
            for number in (0, 1, 2):
                os.close(number)
            time.sleep(600)
        os._exit(0)
    os.wait()
    print("pids", own.pid, bare.pid, os.read(read, 20).decode())
    print("ready")
    if "stay" in os.environ:
        time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are found on Linux only")
def test_what_the_script_leaves_running_ends_with_the_run(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    record = bench.run(LEAVES)
    assert record.status == "Completed"
    pids = pids_of(bench, record.run)
    assert len(pids) == 3
    assert not any(is_running(pid) for pid in pids)
    assert b"[amlctl] ended 3 processes that the script left running: python" in bench.log(record.run)


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are found on Linux only")
@pytest.mark.parametrize("how", ["cancel", "timeout", "supervisor", "runtime", "both"])
def test_the_process_tree_ends_however_the_run_ends(tmp_path: Path, how: str) -> None:
    bench = local_bench(tmp_path)
    variables: dict[str, str | None] = {"stay": "1"}
    run = bench.start(LEAVES, variables=variables, timeout_s=3.0 if how == "timeout" else None)
    pids = pids_of(bench, run)
    supervisor = supervisor_of(bench, run)
    has_cgroup = RunPaths(bench.project.state_dir, run).cgroup.exists()
    [runtime] = [one.pid for one in all_processes().values() if one.parent == supervisor and one.session != one.pid]
    if how == "cancel":
        bench.workspace.cancel(run)
    if how in ("supervisor", "both"):
        kill_supervisor(bench, run)
    if how in ("runtime", "both"):
        os.kill(runtime, signal.SIGKILL)
    record = bench.finished(run)
    assert record.status == ("Canceled" if how == "cancel" else "Failed")
    left = [pid for pid in pids if is_running(pid)]
    if how == "both" and not has_cgroup:  # its parents are gone, and it has nothing of the run any more
        assert left in ([], [pids[1]])
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    else:
        assert left == []


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are found on Linux only")
def test_a_last_line_without_an_end_is_not_continued_by_ours(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    run = bench.start(
        """
        import subprocess, sys
        subprocess.Popen(["setsid", "sleep", "600"], stdin=-3, stdout=-3, stderr=-3)
        sys.stdout.write("no end")
        """
    )
    assert bench.finished(run).status == "Completed"
    lines = bench.log(run).splitlines()
    assert lines[0] == b"no end"
    assert lines[1].startswith(b"[amlctl] ended 1 process")


def test_helpers_that_end_by_themselves_are_not_worth_a_word(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    record = bench.run("import subprocess; subprocess.Popen(['sleep', '0.1'], start_new_session=True)")
    assert (record.status, bench.log(record.run)) == ("Completed", b"")


def test_hangup_ends_a_run_as_a_cancel_does(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    run = bench.start(WAITS_FOR_A_SIGNAL)
    bench.wait_for_log(run, b"ready")
    os.kill(supervisor_of(bench, run), signal.SIGHUP)
    assert bench.finished(run).status == "Canceled"
    assert (bench.outputs(run, tmp_path / "o") / "last.txt").read_text() == "kept"


def test_what_could_not_be_kept_is_named_at_the_end_of_the_log(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    record = bench.run("""
        import os, socket
        os.chdir(os.environ["AMLCTL_OUTPUTS_DIR"])
        os.symlink("gone", "dangling")
        os.mkfifo("pipe")
        socket.socket(socket.AF_UNIX).bind("socket")
        open("kept", "w").write("1")
    """)
    assert record.status == "Completed"
    assert bench.log(record.run).decode().splitlines() == [
        "[amlctl] outputs/dangling was left out: the link leads nowhere",
        "[amlctl] outputs/pipe was left out: neither a file nor a folder",
        "[amlctl] outputs/socket was left out: neither a file nor a folder",
    ]
    container = RunPaths(bench.project.state_dir, record.run).container
    wait_until(lambda: not container.exists(), what="the removal of the container")
    assert sorted(path.name for path in bench.outputs(record.run, tmp_path / "o").iterdir()) == ["kept"]
