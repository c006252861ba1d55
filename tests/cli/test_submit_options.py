"""What reaches the script, and how a submit says how it ended."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, StartTerminal, made_project
from tests.support.warm_command import WarmCommand

ECHO = """
import json, os, sys
config = json.load(open(sys.argv[sys.argv.index("--config") + 1])) if "--config" in sys.argv else None
print(json.dumps({"arguments": sys.argv[1:], "config": config, "variable": os.environ.get("GREETING")}))
"""
CURRENT = ("--env-from", "current")


def echo(project: Cli, *arguments: str) -> str:
    project.write("pipeline/echo.py", ECHO)
    answer = project("submit", *arguments)
    assert answer.code == 0, answer
    return answer.out.splitlines()[0]


def test_arguments_follow_two_dashes(project: Cli) -> None:
    output = echo(project, "echo.py", *CURRENT, "--", "--json", "-v", "--", "a b", "--workspace")
    assert '"arguments": ["--json", "-v", "--", "a b", "--workspace"]' in output


def test_variables_and_config(project: Cli) -> None:
    project.write("pipeline/configs/base.json", '{"rate": 1, "name": "x"}')
    output = echo(
        project, "echo.py", *CURRENT, "--config", "base.json", "--set", "rate=0.5", "--env", "GREETING=good day"
    )
    assert '"config": {"rate": 0.5, "name": "x"}' in output
    assert '"variable": "good day"' in output


def test_names_of_the_first_tool(project: Cli) -> None:
    project.write("pipeline/echo.py", ECHO)
    project.write("pipeline/base.json", '{"rate": 1}')
    project.write("data_blobs/working/x/file", "1")
    project.json("sync", "working/x")
    (project.cwd / "data_blobs/working/x/file").write_text("2")
    document = project.json(
        *("submit", "--script-path", "pipeline/echo.py", "--config-path", "base.json", "--experiment-name", "old"),
        *("--required-datasets-path", "data_blobs/working/x", "--should-upload-datasets", "False", *CURRENT),
    )
    assert document["experiment"] == "old"
    assert list(document["datasets"]) == ["working/x"]
    assert project.json("status")["datasets"][0]["modified"] == ["file"]
    assert "--script-path" not in project("submit", "--help").out


def test_a_command_line_of_the_first_tool_works_as_it_is(project: Cli) -> None:
    """Without `submit`; the script gets the config's path as its only argument, and in a repeated run too."""
    project.write("pipeline/show.py", "import sys; [path] = sys.argv[1:]; print('content', open(path).read())")
    project.write("pipeline/base.json", '{"rate": 1}')
    answer = project(
        *("--script-path", "pipeline/show.py", "--config-path", "pipeline/base.json", "--compute-target", "local"),
        *("--datastore", "workspaceblobstore", "--should-open-url", "True", *CURRENT),
    )
    assert answer.code == 0, answer
    assert 'content {"rate": 1}' in answer.out + answer.err
    for line in ("--script-path is now amlctl submit SCRIPT", "--compute-target is now --compute"):
        assert answer.err.count(line) == 1
    assert project("submit", "--from", "@last", *CURRENT).code == 0
    assert project("submit", "show.py", "--config", "base.json", *CURRENT).code == 1  # it gets --config PATH
    assert project("--script-path", "show.py", "--should-open-url", "perhaps").code == 2


def test_a_failure_is_reported_last(project: Cli) -> None:
    project.write("pipeline/broken.py", "raise SystemExit(3)")
    answer = project("submit", "broken.py", *CURRENT)
    assert answer.code == 1
    run = project.json("runs")["runs"][0]["run"]
    lines = answer.err.splitlines()
    assert lines[-2].startswith(f"error: run {run} is Failed")
    assert lines[-1] == f"hint: amlctl logs {run}"
    followed = project("logs", run, "-f")
    assert followed.code == 1
    assert followed.err.splitlines()[-2:] == [lines[-2], f"hint: amlctl runs show {run}"]
    followed = project("logs", run, "-f", "--json")
    assert (followed.code, followed.document["status"]) == (1, "Failed")
    assert project("logs", run).code == 0


def test_detach(project: Cli) -> None:
    project.write("pipeline/echo.py", ECHO)
    answer = project("submit", "echo.py", *CURRENT, "--detach")
    assert answer.code == 0
    run = project.json("runs")["runs"][0]["run"]
    assert run in answer.out
    assert f"amlctl logs {run} -f" in answer.out
    assert "arguments" in project("logs", "@last", "-f").out


def test_detach_on_a_terminal_says_the_run_once(project: Cli, terminal: StartTerminal) -> None:
    project.write("pipeline/echo.py", ECHO)
    screen = terminal(project.command("submit", "echo.py", *CURRENT, "--detach"), project.cwd)
    assert screen.finish() == 0
    run = project.json("runs")["runs"][0]["run"]
    assert screen.text.count(run) == screen.text.count(f"amlctl logs {run} -f") + 1 == 2


def test_active_runs(project: Cli) -> None:
    project.write("pipeline/endless.py", "import time\nwhile True: time.sleep(0.1)")
    for _ in range(2):
        assert project("submit", "endless.py", *CURRENT, "--detach").code == 0
    queued = project.json("runs")["runs"][0]["run"]
    try:
        fetched = project("fetch", queued)
        assert fetched.code == 0
        assert fetched.out.startswith(f"run {queued}  no outputs saved yet (run is Queued);")
        assert fetched.out.endswith(f"amlctl fetch {queued}\n")
        assert project.json("fetch", queued)["status"] == "Queued"
        log = project("logs", queued)
        assert (log.code, log.out) == (0, "")
        assert log.err.startswith(f"run {queued} is Queued")  # and soon why
        assert log.err.endswith(f", without a log yet: amlctl logs {queued} -f\n")
    finally:
        assert [project("cancel", run).code for run in ("@last", "@2")] == [0, 0]


def test_dry_run_sends_and_runs_nothing(project: Cli) -> None:
    project.write("pipeline/echo.py", ECHO)
    project.write("data_blobs/working/x/file", "1")
    answer = project("submit", "echo.py", *CURRENT, "--dataset", "working/x", "--dry-run")
    assert answer.code == 0
    assert "python pipeline/echo.py" in answer.out
    assert "working/x" in answer.out
    assert project.json("runs") == {"runs": []}
    assert not (project.cwd / ".amlctl/store").exists()


def test_several_processes(project: Cli) -> None:
    project.write("pipeline/ranks.py", "import os; print('rank', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'])")
    assert project("submit", "ranks.py", *CURRENT, "--processes", "2").out.splitlines()[0] == "rank 0 of 2"
    assert project("logs", "@last", "--file", "std_log_process_1.txt").out == "rank 1 of 2\n"
    assert "distribution  pytorch, 2 processes\n" in project("runs", "show", "@last").out
    assert "distribution  mpi, 1 process on each of 3 instances\n" in (
        project("submit", "ranks.py", *CURRENT, "--dry-run", "--distribution", "mpi", "--instances", "3").out
    )
    wrong = project("submit", "ranks.py", *CURRENT, "--distribution", "ring")
    assert (wrong.code, wrong.err) == (
        2,
        "error: --distribution 'ring' is unknown\nhint: one of pytorch, mpi, tensorflow\n",
    )


def test_tail(project: Cli) -> None:
    project.write("pipeline/lines.py", "for i in range(10): print(f'line {i}')")
    assert project("submit", "lines.py", *CURRENT).code == 0
    assert project("logs", "@last", "--tail", "2").out == "line 8\nline 9\n"
    assert project("logs", "@last", "--tail", "2", "-f").out == "line 8\nline 9\n"


def test_the_project_option(project: Cli, folder: Cli) -> None:
    assert folder.json("runs", "--project", str(project.cwd)) == {"runs": []}
    assert folder("runs", variables={"AMLCTL_PROJECT": str(project.cwd)}).code == 0


@pytest.mark.skipif(sys.platform == "darwin", reason="APFS takes no name that is not UTF-8")
def test_a_run_in_a_folder_whose_name_is_not_utf_8(tmp_path: Path, warm: WarmCommand) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    project = made_project(folder, warm)
    project.write("data_blobs/working/x/file", "1")
    kill = 'os.kill(json.load(open("../supervisor.json"))["process"], signal.SIGKILL)'
    project.write("pipeline/kill.py", f"import json, os, signal\n{kill}\nsignal.pause()\n")
    answer = project("--json", "submit", "kill.py", *CURRENT, "--dataset", "working/x")
    assert (answer.code, "was killed, or crashed" in str(answer.document["error"])) == (1, True), answer
