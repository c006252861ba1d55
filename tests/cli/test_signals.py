"""SIGTERM and SIGHUP end a command as Ctrl-C does: nothing half-done stays, and the exit code names the signal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import LIMIT_S, Cli, StartTerminal, wait_for_state

ENDLESS = """
import time
print("begun", flush=True)
while True:
    time.sleep(0.1)
"""
LARGE = 6 << 20
KEPT = "hint: what has arrived is kept; run the same command again to continue"


def temporary_files(folder: Path) -> list[str]:
    return [f"{where}/{one}" for where, _, names in os.walk(folder) for one in names if one.startswith(".amlctl-tmp-")]


def wait_until(is_reached: Callable[[], object], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not is_reached():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    processes: list[subprocess.Popen[str]] = []

    def start(cli: Cli, *arguments: str, **more: object) -> subprocess.Popen[str]:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **more}
        processes.append(subprocess.Popen(cli.command(*arguments), cwd=cli.cwd, text=True, **options))  # type: ignore[call-overload]
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def large(project: Cli) -> Cli:
    (project.cwd / "data_blobs/raw/d").mkdir()
    (project.cwd / "data_blobs/raw/d/file").write_bytes(os.urandom(LARGE))
    return project


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("way", ["sync", "pull"])
def test_what_was_started_is_cleaned_up(
    large: Cli, started: Callable[..., subprocess.Popen[str]], number: signal.Signals, way: str
) -> None:
    arguments = ["sync", "raw/d", "--store", "../store"]
    if way == "pull":
        assert large(*arguments).code == 0
        shutil.rmtree(large.cwd / ".amlctl")
        shutil.rmtree(large.cwd / "data_blobs/raw/d")
        arguments += ["--pull"]
    process = started(large, *arguments, "--bwlimit", "1MiB")
    # Of the data, which take seconds: a file of the state is there for a moment, and one that a signal hits between
    # its making and its removal is removed by the next command.
    wait_until(lambda: [one for one in temporary_files(large.cwd.parent) if "/.amlctl/" not in one], process)
    process.send_signal(number)
    _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 128 + number
    assert err.splitlines()[-2:] == [f"error: ended by {number.name}", KEPT]
    assert temporary_files(large.cwd.parent) == []
    assert large(*arguments).code == 0


def test_as_json(large: Cli, started: Callable[..., subprocess.Popen[str]]) -> None:
    process = started(large, "sync", "raw/d", "--bwlimit", "1MiB", "--json")
    wait_until(lambda: temporary_files(large.cwd), process)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=LIMIT_S)
    assert json.loads(out)["error"]["kind"] == "interrupted"
    assert process.returncode == 143


def test_a_second_one_ends_it_at_once(large: Cli, started: Callable[..., subprocess.Popen[str]]) -> None:
    process = started(large, "sync", "raw/d", "--bwlimit", "100KiB")
    wait_until(lambda: temporary_files(large.cwd), process)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S) in (-signal.SIGTERM, 143)


def test_what_the_caller_ignores_stays_ignored(large: Cli, started: Callable[..., subprocess.Popen[str]]) -> None:
    process = started(
        large, "sync", "raw/d", "--bwlimit", "3MiB", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    )
    wait_until(lambda: temporary_files(large.cwd), process)
    process.send_signal(signal.SIGHUP)
    assert process.wait(LIMIT_S) == 0


@pytest.fixture
def following(project: Cli, started: Callable[..., subprocess.Popen[str]]) -> subprocess.Popen[str]:
    project.write("pipeline/endless.py", ENDLESS)
    process = started(project, "submit", "endless.py", "--env-from", "current")
    assert process.stdout is not None
    assert "begun\n" in process.stdout
    return process


def test_sigterm_ends_the_run_as_ctrl_c_does_without_a_terminal(project: Cli, following: subprocess.Popen[str]) -> None:
    following.send_signal(signal.SIGTERM)
    _, err = following.communicate(timeout=LIMIT_S)
    assert "SIGTERM: canceling the run" in err
    assert following.returncode == 1
    assert project.json("runs", "show", "@last")["status"] == "Canceled"


def test_sigterm_leaves_the_run_where_the_setting_says_so(
    project: Cli, started: Callable[..., subprocess.Popen[str]]
) -> None:
    project.write(".amlctl.toml", '[submit]\non_interrupt = "detach"\n')
    project.write("pipeline/endless.py", ENDLESS)
    process = started(project, "submit", "endless.py", "--env-from", "current")
    assert process.stdout is not None
    assert "begun\n" in process.stdout
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S) == 143
    wait_for_state(project, "Running")
    assert project("cancel", "@last").code == 0


def test_a_closed_terminal_does_not_end_a_run(project: Cli, following: subprocess.Popen[str]) -> None:
    following.send_signal(signal.SIGHUP)
    assert following.wait(LIMIT_S) == 129
    wait_for_state(project, "Running")
    assert project("cancel", "@last").code == 0


def test_the_window_of_a_run_is_closed(project: Cli, terminal: StartTerminal) -> None:
    project.write("pipeline/endless.py", ENDLESS)
    screen = terminal(project.command("submit", "endless.py", "--env-from", "current"), project.cwd)
    screen.wait_for("begun")
    assert screen.hang_up() == 129
    wait_for_state(project, "Running")
    assert project("cancel", "@last").code == 0


def test_the_window_of_a_sync_is_closed(large: Cli, terminal: StartTerminal) -> None:
    """While progress is drawn there."""
    screen = terminal(large.command("sync", "raw/d", "--bwlimit", "1MiB"), large.cwd)
    screen.wait_for("send")
    assert screen.hang_up() == 129
    assert temporary_files(large.cwd) == []
