"""Faults of amlctl itself, and failures that the operating system explains."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from amlctl.cli.faults import explained, without_values
from amlctl.errors import RightsError, ServiceUnavailable
from tests.cli.conftest import Cli

_PROGRAM = """
import sys
sys.path.append(sys.argv.pop(1))
from amlctl.cli.app import run
import broken_command
sys.modules["amlctl.cli.commands.status"] = broken_command
sys.exit(run(sys.argv[1:]))
"""

_BROKEN_COMMAND = """
import typer
from amlctl.cli.invocation import invocation
app = typer.Typer()

@app.command()
def status(ctx: typer.Context) -> None:
    invocation(ctx).app
    raise RuntimeError("wires crossed")
"""


def broken_status(project: Cli, *arguments: str) -> subprocess.CompletedProcess[str]:
    folder = project.write("modules/broken_command.py", _BROKEN_COMMAND).parent
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(folder), "status", *arguments],
        cwd=project.cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_fault_is_short_and_names_its_report(project: Cli) -> None:
    done = broken_status(project)
    assert done.returncode == 70
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0] == "error: amlctl itself failed: RuntimeError: wires crossed"
    assert "Traceback" not in done.stderr
    report = Path(lines[1].partition("the full report is in ")[2])
    assert report.parent == project.cwd / ".amlctl/logs"
    text = report.read_text()
    assert "Traceback" in text
    assert "wires crossed" in text
    assert "command: amlctl status" in text


def test_a_fault_as_json(project: Cli) -> None:
    done = broken_status(project, "--json")
    assert done.returncode == 70
    assert '"kind": "internal"' in done.stdout


def test_verbose_shows_where(project: Cli) -> None:
    assert "Traceback" in broken_status(project, "-v").stderr


def test_no_secret_in_the_report() -> None:
    typed = ["submit", "a.py", "--env", "TOKEN=s3cret", "--env=KEY=s3cret", "--set", "a.api_key=s3cret"]
    assert without_values([*typed, "--", "--password", "s3cret"]) == (
        "amlctl submit a.py --env TOKEN=… --env=KEY=… --set a.api_key=*** -- …"
    )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(number: int) -> None:
    error = explained(OSError(number, os.strerror(number), "/data/file"))
    assert isinstance(error, ServiceUnavailable)
    assert error.message.startswith("/data/file: ")
    assert "mounted at /" in error.message


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_missing_rights(number: int) -> None:
    error = explained(OSError(number, os.strerror(number), "/data/file"))
    assert isinstance(error, RightsError)
    assert error.message.startswith("/data/file: ")


def test_other_failures_are_ours() -> None:
    assert explained(OSError(errno.ENOENT, "no such file", "/data/file")) is None
    assert explained(ValueError("x")) is None


def test_a_reader_that_goes_away_is_not_an_error(project: Cli) -> None:
    process = subprocess.Popen(
        project.command("runs", "--help"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=project.cwd
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr as stderr:
        assert stderr.read() == b""
    assert process.wait(60) in (0, 141)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_a_result_that_cannot_be_written(project: Cli, options: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            project.command("runs", *options),
            cwd=project.cwd,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 6
    assert done.stderr == ("error: no space left on the disk\nhint: make room, then run the same command again\n")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-"])
def test_closed_streams(project: Cli, closed: str) -> None:
    command = " ".join(project.command("runs"))
    done = subprocess.run(["sh", "-c", f"{command} {closed}"], cwd=project.cwd, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
