"""How a run ends on its node: signals, restarts, and what is left running."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from amlctl.core.store_keys import (
    outputs_index_key,
    outputs_prefix,
)
from amlctl.runs.tree import read_index
from tests.support.runs import wait_until
from tests.support.runtime_node import Node


def test_killed_script_keeps_its_outputs(node: Node) -> None:
    record = node.record(
        """
        import os, signal
        open(os.environ["AMLCTL_OUTPUTS_DIR"] + "/model.bin", "w").write("half")
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert node.run(record)[0] == 128 + signal.SIGKILL
    assert node.output(record, "model.bin") == b"half"


WAITING = """
    import os, signal, sys, time
    def stop(number, frame):
        open(os.environ["AMLCTL_OUTPUTS_DIR"] + "/last.txt", "w").write(str(number))
        sys.exit(7)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    open(os.environ["AMLCTL_OUTPUTS_DIR"] + "/first.txt", "w").write("1")
    print("ready")
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_is_handed_on_and_last_words_are_kept(node: Node, number: signal.Signals) -> None:
    record = node.record(WAITING)
    process = node.start(record)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 7
    assert node.output(record, "last.txt") == str(int(number)).encode()


def test_deaf_script_and_its_children_are_killed_after_the_grace(node: Node) -> None:
    record = node.record(
        """
        import signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(child.pid)
        time.sleep(600)
        """
    )
    process = node.start(record, "--grace", "0.2")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL
    wait_until(lambda: not _is_running(child))


def test_outputs_are_saved_while_the_script_works(node: Node) -> None:
    record = node.record(WAITING)
    process = node.start(record, "--save-interval", "0.05")
    try:
        wait_until(lambda: node.store.info(outputs_prefix(record.run) + "first.txt"))
        names = wait_until(lambda: [file.path for file in read_index(node.store, outputs_index_key(record.run)) or []])
        assert names == ["first.txt"]
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_restart_gets_the_outputs_back(node: Node) -> None:
    record = node.record(
        """
        import os
        path = os.environ["AMLCTL_OUTPUTS_DIR"] + "/epochs/log.txt"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, "a").write("attempt " + os.environ["AMLCTL_ATTEMPT"] + "\\n")
        print(open(path).read(), end="")
        """
    )
    assert node.run(record) == (0, "attempt 1\n")
    shutil.rmtree(node.container)  # another node
    assert node.run(record) == (0, "[amlctl] attempt 2\nattempt 1\nattempt 2\n")
    assert node.output(record, "epochs/log.txt") == b"attempt 1\nattempt 2\n"


def test_processes_of_a_node_agree_on_the_attempt(node: Node) -> None:
    """Whichever of them comes first; what an earlier start has left in the container does not count."""
    record = node.record("import os; print(os.environ['AMLCTL_ATTEMPT'])", processes=2)
    for attempt in ("1", "2", "3"):
        second = node.start(record, "--rank", "0", "1")
        wait_until((node.container / ".amlctl-node" / "processes" / "1").exists)
        first = node.start(record, "--rank", "0", "0")
        for process in (first, second):
            text, _ = process.communicate(timeout=60)
            assert text.splitlines()[-1] == attempt
        if attempt == "2":
            shutil.rmtree(node.container)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.strip().startswith("Z")


@pytest.mark.skipif(sys.platform != "linux", reason="what /dev/stdout is differs")
@pytest.mark.parametrize("is_one", [True, False])
def test_a_script_cannot_empty_the_logs_of_its_node(node: Node, tmp_path: Path, is_one: bool) -> None:
    """Where the launcher has made files of the runtime's streams."""
    record = node.record("""
        import subprocess
        print("first")
        subprocess.run("echo second > /dev/stdout; echo third > /dev/stderr; echo fourth", shell=True)
        print("fifth")
    """)
    node.make_container(record)
    command = [sys.executable, "-m", "amlctl.runtime", "--store", str(tmp_path / "store"), "--run", record.run]
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        done = subprocess.run(
            [*command, "--container", str(node.container)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(node.runtime)},
            stdout=out,
            stderr=out if is_one else err,
            check=False,
        )
    assert done.returncode == 0
    words = (tmp_path / "out").read_text().split()
    expected = ["first", "second", "third", "fourth", "fifth"]
    assert words == (expected if is_one else [word for word in expected if word != "third"])
    assert (tmp_path / "err").read_text().split() == ([] if is_one else ["third"])


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are found on Linux only")
def test_the_process_tree_of_a_node_ends_with_the_script(node: Node) -> None:
    record = node.record("""
        import subprocess, sys
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", "import os, time; os.setsid(); print(os.getpid(), flush=True);"
             " os.close(1); os.close(2); time.sleep(600)"], stdout=subprocess.PIPE, env={})
        print(child.stdout.readline().decode(), flush=True)
    """)
    code, text = node.run(record)
    pid, reported = text.split(None, 1)
    assert code == 0
    assert reported == f"[amlctl] ended 1 process that the script left running: python ({pid})\n"
    assert not Path(f"/proc/{pid}").exists()


def test_a_second_start_finds_times_and_folders_as_the_first_left_them(node: Node) -> None:
    record = node.record("""
        import os, time
        out = os.environ["AMLCTL_OUTPUTS_DIR"]
        found = sorted(os.listdir(out), key=lambda name: os.path.getmtime(os.path.join(out, name)))
        if os.environ["AMLCTL_ATTEMPT"] == "1":
            os.makedirs(out + "/empty/folder")
            os.utime(out + "/empty", (0, 0))
            for name in ("ckpt-900", "ckpt-100", "ckpt-1000"):
                open(f"{out}/{name}", "w").write("x")
                time.sleep(0.02)
        else:
            found = [name for name in found if name != "empty"]
            print(*found, os.path.isdir(out + "/empty/folder"))
    """)
    assert node.run(record) == (0, "")
    for attempt in (2, 3):
        shutil.rmtree(node.container)
        assert node.run(record) == (0, f"[amlctl] attempt {attempt}\nckpt-900 ckpt-100 ckpt-1000 True\n")


def test_hangup_is_handed_on_and_nohup_is_kept(node: Node) -> None:
    record = node.record(WAITING.replace("SIGTERM", "SIGHUP"))
    process = node.start(record)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 7
    assert node.output(record, "last.txt") == str(int(signal.SIGHUP)).encode()
