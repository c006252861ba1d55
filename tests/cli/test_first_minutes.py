"""The first minutes of a user who knows other tools better than this one."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Cli


@pytest.mark.parametrize(
    ("typed", "hint", "commands"),
    [
        ("ls", "to list runs: amlctl runs", ["amlctl runs"]),
        ("LS", "to list runs: amlctl runs", ["amlctl runs"]),
        (
            "download",
            "a run's outputs: amlctl fetch; a dataset: amlctl sync --pull PATH",
            ["amlctl fetch", "amlctl sync --pull PATH"],
        ),
        ("sumbit", "did you mean submit? See all: amlctl --help", ["amlctl --help"]),
        ("xyzzy", "see all: amlctl --help", ["amlctl --help"]),
    ],
)
def test_an_unknown_command_names_the_right_one(folder: Cli, typed: str, hint: str, commands: list[str]) -> None:
    answer = folder(typed, "--json")
    assert answer.code == 2
    assert answer.document["error"] == {
        "kind": "usage",
        "message": f"No such command {typed!r}",
        "hint": hint,
        "next": commands,
    }
    assert folder(typed).err == f"error: No such command {typed!r}\nhint: {hint}\n"


@pytest.mark.parametrize("topic", [["submit"], ["runs", "show"], []])
def test_help_shows_the_page_of_a_command(folder: Cli, topic: list[str]) -> None:
    answer = folder("help", *topic)
    assert (answer.code, answer.out) == (0, folder(*topic, "--help").out)


def test_help_of_an_unknown_command_names_the_right_one(folder: Cli) -> None:
    answer = folder("help", "ls")
    assert (answer.code, answer.err) == (2, "error: No such command 'ls'\nhint: to list runs: amlctl runs\n")


def test_the_version_has_a_short_option(folder: Cli) -> None:
    assert folder("-V").out == folder("--version").out


def test_the_newest_run_is_the_default(project: Cli) -> None:
    project.write("pipeline/hello.py", "print('good morning')")
    assert project("submit", "hello.py", "--env-from", "current").code == 0
    assert "good morning" in project("logs").out
    assert project.json("fetch")["run"] == project.json("runs", "show")["run"]


def test_without_any_run_the_default_is_not_found(project: Cli) -> None:
    answer = project("logs")
    assert (answer.code, answer.out) == (4, "")


@pytest.mark.parametrize(
    ("variables", "has_color"),
    [({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": ""}, False), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)],
)
def test_color_can_be_forced_in_a_pipe(folder: Cli, variables: dict[str, str], has_color: bool) -> None:
    assert ("\x1b[" in folder("ls", variables=variables).err) is has_color
