"""Logs and processes of runs: no line is lost, and nothing is left running."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

from amlctl.runtime.process_tree import all_processes
from amlctl.workspaces.local.run_paths import RunPaths
from tests.contract.test_local import is_running, local_bench
from tests.support.runs import wait_until
from tests.support.supervised_runs import (
    assert_failed_for_want_of_a_supervisor,
    kill_supervisor,
    pids_of,
    supervisor_of,
    wait_until_noted,
)

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
    for number in range(100_000_000):  # until it is ended
        print(f"line {number}", flush=True)
        if number == 1000:
            print("ready")
        if number % 100 == 0:
            with open(os.path.join(out, "printed.new"), "w") as file:
                file.write(str(number))
            os.rename(os.path.join(out, "printed.new"), os.path.join(out, "printed"))
            time.sleep(0.001)
"""


def test_a_killed_supervisor_costs_no_line_and_does_not_stop_the_script(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    run = bench.start(COUNTS)
    wait_until(lambda: b"ready" in RunPaths(bench.project.state_dir, run).log.read_bytes(), what="the first lines")
    wait_until_noted(bench, run)
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


def _is_runtime(pid: int) -> bool:
    with contextlib.suppress(OSError):  # it may have ended
        return b"\0amlctl.runtime\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are found on Linux only")
@pytest.mark.parametrize("how", ["cancel", "timeout", "supervisor", "runtime", "both"])
def test_the_process_tree_ends_however_the_run_ends(tmp_path: Path, how: str) -> None:
    bench = local_bench(tmp_path)
    variables: dict[str, str | None] = {"stay": "1"}
    run = bench.start(LEAVES, variables=variables, timeout_s=3.0 if how == "timeout" else None)
    supervisor = supervisor_of(bench, run)

    def runtimes() -> list[int]:
        return [one.pid for one in all_processes().values() if one.parent == supervisor and _is_runtime(one.pid)]

    [runtime] = wait_until(runtimes, what="the runtime")
    if how == "timeout":  # not before the script is ready, however long that takes
        os.kill(supervisor, signal.SIGSTOP)
        bench.wait_for_log(run, b"ready")
        os.kill(supervisor, signal.SIGCONT)
    pids = pids_of(bench, run)
    has_cgroup = RunPaths(bench.project.state_dir, run).cgroup.exists()
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
    ends_with_it = "subprocess.Popen(['cat'], stdin=subprocess.PIPE, start_new_session=True)"
    record = bench.run(f"import subprocess; helper = {ends_with_it}")
    assert (record.status, bench.log(record.run)) == ("Completed", b"")


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
