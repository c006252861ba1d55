"""What is on the screen: color on a terminal only, lines that fit, results apart from everything else."""

from __future__ import annotations

import os
import re

import pytest

from tests.cli.conftest import Cli, StartTerminal, copy_project, made_project
from tests.support.warm_command import WarmCommand

ESCAPE = "\x1b"
QUICK = "import os, pathlib\nprint('hello')\npathlib.Path(os.environ['AMLCTL_OUTPUTS_DIR'], 'r').write_text('1')\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, warm: WarmCommand) -> Cli:
    project = made_project(tmp_path_factory.mktemp("made") / "project", warm)
    name = "a_script_with_quite_a_long_name_of_its_own.py"
    project.write(f"pipeline/{name}", QUICK)
    for _ in range(2):
        assert project("submit", name, "--env-from", "current").code == 0
    return project


@pytest.fixture
def with_run(project: Cli, made: Cli) -> Cli:
    """With two of them."""
    copy_project(made, project)
    return project


COMMANDS = [
    ("runs",),
    ("runs", "show", "@last"),
    ("logs", "@last"),
    ("fetch", "@last"),
    ("compute", "list"),
    ("doctor",),
    ("store", "stats"),
    ("status",),
    ("env", "show"),
]


def test_a_pipe_gets_no_escape_codes(with_run: Cli) -> None:
    for command in [*COMMANDS, ("--help",), ("submit", "--help"), ("nonsense",)]:
        answer = with_run(*command)
        assert ESCAPE not in answer.out + answer.err, command


@pytest.mark.parametrize(
    ("variables", "options"),
    [({"NO_COLOR": "1"}, ()), ({"TERM": "dumb"}, ()), ({}, ("--no-color",))],
    ids=["NO_COLOR", "TERM=dumb", "--no-color"],
)
def test_no_color_on_a_terminal(
    with_run: Cli, variables: dict[str, str], options: tuple[str, ...], terminal: StartTerminal
) -> None:
    for command in (("runs",), ("logs", "nothing"), ("--help",), ("fetch",)):
        screen = terminal(with_run.command(*command, *options), with_run.cwd, variables=variables)
        screen.finish()
        assert "\x1b[3" not in screen.text, command
        assert "\x1b[1;3" not in screen.text, command
        assert "\x1b]" not in screen.text, command


@pytest.mark.parametrize("is_ci", [False, True])
def test_paths_are_links_on_a_terminal(with_run: Cli, terminal: StartTerminal, is_ci: bool) -> None:
    screen = terminal(with_run.command("fetch"), with_run.cwd, variables={"CI": "true" if is_ci else ""})
    assert screen.finish() == 0
    folder = with_run.cwd / "outputs" / with_run.json("runs", "show", "@last")["run"]
    link = f"\x1b]8;;{folder.as_uri()}\x1b\\outputs/{folder.name}/\x1b]8;;\x1b\\"
    assert (link in screen.text) == (not is_ci)
    assert ("\x1b]" in screen.text) == (not is_ci)


def test_color_on_a_terminal(with_run: Cli, terminal: StartTerminal) -> None:
    screen = terminal(with_run.command("runs"), with_run.cwd)
    assert screen.finish() == 0
    assert "\x1b[32mCompleted\x1b[0m" in screen.text
    screen = terminal(with_run.command("logs", "nothing"), with_run.cwd)
    assert screen.finish() == 4
    assert "\x1b[31m\x1b[1merror:\x1b[0m Run 'nothing' not found" in screen.text


@pytest.mark.parametrize("columns", ["80", "200"])
def test_tables_fit(with_run: Cli, columns: str) -> None:
    for command in (("runs",), ("compute", "list"), ("store", "stats"), ("runs", "compare", "@last", "@2")):
        answer = with_run(*command, variables={"COLUMNS": columns})
        assert answer.code == 0, answer
        # The line with the store's folder is not part of the table: a path is never cut.
        lines = [line for line in answer.out.splitlines() if not line.startswith("store ")]
        assert max(map(len, lines)) <= int(columns), answer.out


def test_a_run_id_is_never_cut(with_run: Cli) -> None:
    run = with_run.json("runs")["runs"][0]["run"]
    for variables in ({"COLUMNS": "80"}, {"COLUMNS": "200", "TERM": "dumb"}):
        assert run in with_run("runs", variables=variables).out


def test_a_comparison_cuts_no_value(project: Cli) -> None:
    project.write("pipeline/train.py", QUICK)
    project.write("pipeline/base.json", '{"epochs": 1, "note": "none"}')
    words = "a note that is " + "far " * 20 + "too long for any column"
    run = ("submit", "train.py", "--env-from", "current", "--config", "base.json", "--quiet")
    assert project(*run).code == project(*run, "--set", "epochs=2", "--set", f"note={words}").code == 0
    narrow = project("runs", "compare", "@2", "@last", variables={"COLUMNS": "80"}).out.splitlines()
    assert [line for line in narrow if re.fullmatch(r"  epochs +1 +2 *", line)]
    below = narrow[narrow.index("config note") + 1 :][:2]
    assert [line.split("  ")[-1] for line in below] == ["none", words]
    tight = project("runs", "compare", "@2", "@last", variables={"COLUMNS": "60"}).out.splitlines()
    assert [line.partition("  ")[0] for line in tight[:2]] == ["(1)", "(2)"]
    assert [line for line in tight if re.fullmatch(r"  epochs +1 +2 *", line)]
    piped = project("runs", "compare", "@2", "@last").out.splitlines()
    assert [re.split("  +", line) for line in piped if line.startswith("  note")] == [["", "note", "none", words]]


def test_runs_stand_side_by_side_as_far_as_their_values_fit(project: Cli) -> None:
    project.write("pipeline/train.py", QUICK)
    project.write("pipeline/base.json", '{"epochs": 1}')
    submit = ("submit", "train.py", "--env-from", "current", "--config", "base.json", "--quiet")
    assert project(*submit, "--set", "epochs=1,2,3,4", "--sweep").code == 0
    compared = project("runs", "compare", "@last", variables={"COLUMNS": "80"}).out
    assert re.search(r"^  epochs +1 +2 +3 +4 *$", compared, re.MULTILINE), compared
    listed = project("runs", variables={"COLUMNS": "62"}).out
    assert "epochs=4" in listed, listed


def test_help_fits(folder: Cli) -> None:
    for command in ((), ("init",), ("submit",), ("status",), ("sync",), ("runs", "list"), ("runs", "show")):
        answer = folder(*command, "--help", variables={"COLUMNS": "80"})
        assert answer.code == 0
        assert max(map(len, answer.out.splitlines())) <= 80
        assert not [typer_own for typer_own in ("<bool>", "<str>", "{", "[[") if typer_own in answer.out]


def test_results_on_stdout_the_rest_on_stderr(project: Cli) -> None:
    project.write("pipeline/train.py", QUICK)
    answer = project("submit", "train.py", "--env-from", "current")
    assert answer.code == 0
    log, *result = answer.out.splitlines()
    assert log == "hello"
    assert result[0].startswith("run train-")
    time = re.fullmatch(r"run train-\S+  Completed in (\d+\.\d s)", result[0])
    assert time is not None
    assert f"took         {time[1]}\n" in project("runs", "show", "@last").out
    assert "hello" not in answer.err
    assert "Completed" not in answer.err  # said once, by the result


def test_quiet_leaves_the_result(project: Cli) -> None:
    project.write("pipeline/train.py", QUICK)
    project.write("data_blobs/working/x/file", "1")
    assert project("submit", "train.py", "--env-from", "current", "--quiet").err == ""
    answer = project("sync", "working/x", "-q")
    assert answer.err == ""
    assert answer.out.startswith("working/x  synced")


BAR = "import sys\nfor i in range(5): sys.stdout.write(f'\\rstep {i}')\nsys.stdout.write('\\ndone')\n"


def test_carriage_returns(project: Cli, terminal: StartTerminal) -> None:
    """Collapsed in a pipe, as they are on a terminal; a last line without its end is ended."""
    project.write("pipeline/bar.py", BAR)
    answer = project("submit", "bar.py", "--env-from", "current")
    assert answer.out.splitlines()[:2] == ["step 4", "done"]
    screen = terminal(project.command("submit", "bar.py", "--env-from", "current"), project.cwd)
    assert screen.finish() == 0
    assert screen.text.count("step 4\r\n") == 1
    assert "done\r\n" in screen.text


def test_a_file_is_not_a_terminal(project: Cli, terminal: StartTerminal) -> None:
    """stdout in a file while stderr is the terminal: color for one of them only."""
    command = " ".join([*project.command("runs", "show", "nothing")])
    screen = terminal(["sh", "-c", f"{command} > out.txt"], project.cwd)
    assert screen.finish() == 4
    assert "\x1b[31m\x1b[1merror:" in screen.text
    assert (project.cwd / "out.txt").read_text() == ""


def seconds_left_out(text: str) -> str:
    return re.sub(r"\d+\.\d s", "_ s", re.sub(r"\b[0-9a-f]{12}\b", "SNAPSHOT", text))


def test_a_day_with_a_dataset(project: Cli) -> None:
    """The whole output, from the first sync to an older snapshot."""
    project.write("data_blobs/working/x/a.txt", "a" * 1500)
    project.write("data_blobs/working/x/b.txt", "b")
    first = project("sync", "working/x")
    assert re.sub(r"[\d.]+ k?B sent in \d blobs?", "_ sent", seconds_left_out(first.out)) == (
        "working/x  synced  2 files, 1.5 kB  snapshot SNAPSHOT\n  2 added, 0 unchanged\n  _ sent in _ s\n"
    )
    assert seconds_left_out(project("sync", "working/x").out) == (
        "working/x  up to date  2 files, 1.5 kB  snapshot SNAPSHOT\n"
    )
    assert project("status").out == "working/x  up to date\n"
    (project.cwd / "data_blobs/working/x/a.txt").unlink()
    project.write("data_blobs/working/x/b.txt", "changed")
    project.write("data_blobs/working/x/c.txt", "c")
    assert (
        project("status").out
        == "working/x  1 new, 1 modified, 1 deleted\n  new       c.txt\n  modified  b.txt\n  deleted   a.txt\n"
    )
    foreseen = project("sync", "working/x", "--dry-run").out.splitlines()
    assert seconds_left_out(foreseen[0]) == "working/x  would change  2 files, 8 B  snapshot SNAPSHOT"
    assert foreseen[1] == "  1 added, 1 modified, 1 deleted, 0 unchanged"
    snapshot = re.findall(r"snapshot (\w+)", first.out)[0]
    pulled = project("sync", "working/x", "--pull", "--snapshot", snapshot, "--theirs")
    assert pulled.code == 0, pulled
    assert "2 files (1.5 kB) received" in pulled.out
    assert not (project.cwd / "data_blobs/working/x/c.txt").exists()


def test_progress_is_live_on_a_terminal_and_a_line_elsewhere(project: Cli, terminal: StartTerminal) -> None:
    for name in ("a", "b", "c"):
        project.write(f"data_blobs/working/x/{name}").write_bytes(os.urandom(1 << 20))
    command = ("sync", "working/x", "--bwlimit", "1MiB", "--store")
    screen = terminal(project.command(*command, "one"), project.cwd)
    assert screen.finish() == 0
    assert re.search(r"send.*working/x.*%.* of 3\.1 MB", screen.text)
    assert "\x1b[?25l" in screen.text
    assert screen.text.rindex("\x1b[?25h") > screen.text.rindex("\x1b[?25l")
    answer = project(*command, "two")
    assert re.fullmatch(r"send    working/x  3 files, 3\.1 MB in \d\.\d s\n", answer.err)
    assert project(*command, "three", "--quiet").err == ""
