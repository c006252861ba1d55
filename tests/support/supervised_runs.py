"""Runs with their supervisor: which process that is, and what its run leaves."""

from __future__ import annotations

import json
import os
import signal

from amlctl.core.run import RunRecord
from amlctl.workspaces.local.run_paths import RunPaths
from tests.contract.test_local import is_running
from tests.contract.workspace import Bench
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


def wait_until_noted(bench: Bench, run: str) -> None:
    """The supervisor notes that a run is Running a moment after the first lines of its log."""

    def is_noted() -> bool:
        record = bench.workspace.read(run)
        return record.status == "Running" or record.is_final

    wait_until(is_noted, what=f"{run} is Running")


def pids_of(bench: Bench, run: str) -> list[int]:
    """Once the supervisor has noted that the run is Running."""
    bench.wait_for_log(run, b"ready")
    wait_until_noted(bench, run)
    line = next(line for line in bench.log_so_far(run).splitlines() if line.startswith(b"pids"))
    return [int(pid) for pid in line.split()[1:]]


def assert_failed_for_want_of_a_supervisor(record: RunRecord, state: str) -> None:
    assert record.status == "Failed"
    assert record.error is not None
    assert record.error["kind"] == "supervisor"
    assert record.error["message"].endswith(f"while the run was {state}")
    assert (record.exit_code is None) == (state != "Running")  # that of a script, if there was one
