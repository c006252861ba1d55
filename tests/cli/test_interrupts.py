"""Ctrl-C while a run is followed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from tests.cli.conftest import LIMIT_S, Cli, StartTerminal, wait_for_state

ENDLESS = """
import os, pathlib, time
pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"], "so_far.txt").write_text("1")
print("begun", flush=True)
while True:
    time.sleep(0.1)
    print("still there", flush=True)
"""


@pytest.fixture
def endless(project: Cli) -> Cli:
    project.write("pipeline/endless.py", ENDLESS)
    return project


SUBMIT = ("submit", "endless.py", "--env-from", "current")


def test_without_a_terminal_it_cancels(endless: Cli) -> None:
    process = subprocess.Popen(
        endless.command(*SUBMIT, "--json"), cwd=endless.cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    for line in process.stderr:
        if line == "begun\n":
            break
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    document = json.loads(out)
    assert document["status"] == "Canceled"
    assert (endless.cwd / document["outputs"] / "so_far.txt").read_text() == "1"


def test_on_a_terminal_it_asks_and_can_leave_the_run_alone(endless: Cli, terminal: StartTerminal) -> None:
    screen = terminal(endless.command(*SUBMIT), endless.cwd)
    screen.wait_for("begun")
    screen.type("\x03")
    screen.wait_for("c/l/w: ")
    screen.type("l\n")
    assert screen.finish() == 130
    record = endless.json("runs", "show", "@last")
    assert f"amlctl logs {record['run']} -f" in screen.text
    assert "@last" not in screen.text  # by then it may be another one's
    wait_for_state(endless, "Running")
    assert endless("cancel", "@last").code == 0
    wait_for_state(endless, "Canceled")


def test_on_a_terminal_it_can_continue_and_cancel_later(endless: Cli, terminal: StartTerminal) -> None:
    screen = terminal(endless.command(*SUBMIT), endless.cwd)
    screen.wait_for("begun")
    screen.type("\x03")
    screen.wait_for("c/l/w: ")
    screen.text = ""
    screen.type("w\n")
    screen.wait_for("still there")
    screen.type("\x03")
    screen.wait_for("c/l/w: ")
    screen.type("c\n")
    assert screen.finish() == 1
    assert " was canceled while it was running" in screen.text
    assert "[amlctl] canceled while it was running" in screen.text


def test_a_second_one_cancels(endless: Cli, terminal: StartTerminal) -> None:
    screen = terminal(endless.command(*SUBMIT), endless.cwd)
    screen.wait_for("begun")
    screen.type("\x03")
    screen.wait_for("c/l/w: ")
    screen.type("\x03")
    assert screen.finish() == 1
    assert " was canceled while it was running" in screen.text
    assert "[amlctl] canceled while it was running" in screen.text


def test_the_setting_decides(endless: Cli, terminal: StartTerminal) -> None:
    endless.write(".amlctl.toml", '[submit]\non_interrupt = "detach"\n')
    screen = terminal(endless.command(*SUBMIT), endless.cwd)
    screen.wait_for("begun")
    screen.type("\x03")
    assert screen.finish() == 130
    wait_for_state(endless, "Running")
    assert endless("cancel", "@last").code == 0
    wait_for_state(endless, "Canceled")


def test_logs_only_stops_watching(endless: Cli, terminal: StartTerminal) -> None:
    assert endless("submit", "endless.py", "--env-from", "current", "--detach").code == 0
    screen = terminal(endless.command("logs", "@last", "-f"), endless.cwd)
    screen.wait_for("begun")
    screen.type("\x03")
    assert screen.finish() in (0, 130)
    wait_for_state(endless, "Running")
    assert endless("cancel", "@last").code == 0
    wait_for_state(endless, "Canceled")


def test_a_ctrl_c_while_a_lock_is_taken_is_not_an_internal_error() -> None:
    """Python's own locks then raise an error in its place; here a condition does, as in a thread's start."""
    program = (
        "import os, signal, threading\n"
        "from amlctl.cli import app\n"
        "condition = threading.Condition(threading.Lock())\n"
        "try:\n"
        "    with condition:\n"
        "        condition.release()\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        condition.acquire()\n"
        "except BaseException as error:\n"
        "    print(type(error).__name__, app._translated(error, None, [], is_verbose=False).exit_code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["RuntimeError", "130"]
