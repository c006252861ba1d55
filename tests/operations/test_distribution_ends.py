"""How a run of several processes ends: all of its processes end, and its exit code is that of the first that failed."""

from __future__ import annotations

import json
import os
import signal

import pytest

from amlctl.operations.fetch import fetch
from amlctl.workspaces.local.run_paths import RunPaths
from tests.contract.test_local import is_running
from tests.support.bench import Bench, wait_for_state
from tests.support.logs import read_log_text
from tests.support.runs import wait_until

WAITS = """
    import os, pathlib, signal, subprocess, sys, time
    rank = os.environ["RANK"]
    outputs = pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"])

    def stop(number, frame):
        (outputs / f"last-{rank}.txt").write_text("kept")
        sys.exit(5)

    signal.signal(signal.SIGTERM, stop)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("pids", os.getpid(), child.pid, flush=True)
    while rank != os.environ.get("FAILING") or not os.path.exists(os.environ["GO"]):
        time.sleep(0.02)
    sys.exit(7)
"""


def pids_of(bench: Bench, run: str, ranks: int) -> list[int]:
    """Of the scripts of all ranks and their children, once each says that it is there."""
    names = [f"std_log_process_{rank}.txt" for rank in range(ranks)]

    def lines() -> list[str]:
        texts = [read_log_text(bench.workspace, run, name=name) for name in names]
        return [line for text in texts for line in text.splitlines() if line.startswith("pids")]

    wait_until(lambda: len(lines()) == ranks, f"all ranks of {run}")
    return [int(pid) for line in lines() for pid in line.split()[1:]]


def assert_gone(pids: list[int]) -> None:
    for pid in pids:
        wait_until(lambda pid=pid: not is_running(pid), f"the end of process {pid}")  # type: ignore[misc]


@pytest.mark.parametrize("failing", [0, 3])
def test_one_failing_rank_ends_the_others(bench: Bench, failing: int) -> None:
    go = bench.project.root / "go"
    bench.script(WAITS)
    variables = {"GO": str(go), "FAILING": str(failing)}
    run = bench.submit("train.py", is_detached=True, processes=2, instances=2, variables=variables).record.run
    pids = pids_of(bench, run, 4)
    go.touch()
    record = wait_for_state(bench, run, "Failed")
    assert record.exit_code == 7
    assert record.error is not None
    assert record.error["message"] == f"the script of rank {failing} ended with exit code 7"
    assert f"amlctl logs {run} --file std_log_process_{failing}.txt" in read_log_text(bench.workspace, run)
    assert_gone(pids)
    fetch(bench, run)
    folder = bench.project.outputs_dir / run
    kept = {path.name for path in folder.rglob("last-*.txt")}
    assert kept == {f"last-{rank}.txt" for rank in range(4) if rank != failing}


def test_exit_code_is_that_of_the_rank_that_failed_first(bench: Bench) -> None:
    """Rank 1 loses its partner and fails too, while rank 0 has still to save what it left."""
    bench.script(
        """
        import os, pathlib, signal, socket, sys, time
        address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        if os.environ["RANK"] == "0":
            with socket.create_server(address) as server:
                other = server.accept()[0]
                (pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"]) / "left.txt").write_text("0")
                other.recv(1)
            sys.exit(3)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            try:
                first = socket.create_connection(address)
                break
            except ConnectionRefusedError:
                time.sleep(0.02)
        first.sendall(b"x")
        while first.recv(1):
            pass
        time.sleep(0.3)
        (pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"]) / "late.txt").write_text("1")
        sys.exit(4)
        """
    )
    record = bench.submit("train.py", processes=2).record
    assert (record.status, record.exit_code) == ("Failed", 3)
    assert {path.name for path in (bench.project.outputs_dir / record.run).iterdir()} == {"left.txt", "late.txt"}


def test_a_rank_that_is_killed(bench: Bench) -> None:
    bench.script(
        """
        import os, signal, time
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(600)
        """
    )
    record = bench.submit("train.py", processes=2).record
    assert (record.status, record.exit_code) == ("Failed", 137)
    assert (record.error or {})["message"].startswith("the script of rank 1 was killed by signal 9 (SIGKILL)")


@pytest.mark.parametrize("how", ["cancel", "timeout", "supervisor asked to end"])
def test_a_stop_reaches_all(bench: Bench, how: str) -> None:
    bench.script(WAITS)
    run = bench.submit(
        "train.py",
        is_detached=True,
        processes=2,
        instances=2,
        timeout_s=8.0 if how == "timeout" else None,
        variables={"GO": str(bench.project.root / "never")},
    ).record.run
    pids = pids_of(bench, run, 4)
    if how == "cancel":
        bench.workspace.cancel(run)
    elif how != "timeout":
        os.kill(supervisor_of(bench, run), signal.SIGTERM)
    record = wait_for_state(bench, run, "Failed" if how == "timeout" else "Canceled")
    assert record.exit_code == 5
    assert (record.error or {})["kind"] == ("timeout" if how == "timeout" else "canceled")
    assert_gone(pids)
    fetch(bench, run)
    kept = {path.name for path in (bench.project.outputs_dir / run).rglob("last-*.txt")}
    assert kept == {f"last-{rank}.txt" for rank in range(4)}


def supervisor_of(bench: Bench, run: str) -> int:
    return int(json.loads(RunPaths(bench.project.state_dir, run).supervisor.read_text())["process"])


def test_a_killed_supervisor_leaves_nothing_behind(bench: Bench) -> None:
    bench.script(WAITS.replace('print("pids"', '(outputs / f"first-{rank}.txt").write_text("x"); print("pids"'))
    variables = {"GO": str(bench.project.root / "never")}
    run = bench.submit("train.py", is_detached=True, processes=2, instances=2, variables=variables).record.run
    pids = pids_of(bench, run, 4)
    os.kill(supervisor_of(bench, run), signal.SIGKILL)
    record = wait_for_state(bench, run, "Failed")
    assert (record.error or {})["kind"] == "supervisor"
    assert_gone(pids)
    fetch(bench, run)
    kept = {path.name for path in (bench.project.outputs_dir / run).rglob("first-*.txt")}
    assert kept == {f"first-{rank}.txt" for rank in range(4)}
    assert bench.store.get(f"runs/{run}/logs/std_log_process_3.txt").startswith(b"pids")


def test_waiting_for_a_log_looks_at_that_log(bench: Bench) -> None:
    bench.script(WAITS)
    variables = {"GO": str(bench.project.root / "never")}
    run = bench.submit("train.py", is_detached=True, processes=2, variables=variables).record.run
    pids_of(bench, run, 2)
    chunk = bench.workspace.read_log(run, 0, name="std_log_process_1.txt")
    bench.workspace.wait(run, 0, 3600.0, name="std_log_process_1.txt")
    bench.workspace.cancel(run)
    bench.workspace.wait(run, chunk.cursor, 3600.0, name="std_log_process_1.txt")
    wait_for_state(bench, run, "Canceled")
