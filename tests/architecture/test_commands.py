"""Every command, subcommand and option explains itself, and shows how it is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from typer.core import TyperGroup

from amlctl.cli.app import root_command
from amlctl.cli.command_group import COMMANDS, AppCommand, load
from amlctl.cli.other_names import MEANT
from amlctl.core.message import commands_in


def every_command() -> Iterator[tuple[str, Any]]:
    yield "amlctl", root_command()
    for name in COMMANDS:
        command = load(name)
        yield name, command
        if isinstance(command, TyperGroup):
            for subname, subcommand in command.commands.items():
                yield f"{name} {subname}", subcommand


ALL = dict(every_command())


@pytest.mark.parametrize("name", ALL)
def test_a_command_has_help(name: str) -> None:
    assert ALL[name].help, name


@pytest.mark.parametrize("name", [name for name in ALL if name != "amlctl"])
def test_a_command_has_an_example(name: str) -> None:
    assert f"amlctl {name}" in ALL[name].epilog
    lines = [line for line in ALL[name].epilog.splitlines() if line.startswith("  amlctl")]
    assert [line for line in lines if len(line) > 78] == []  # it is indented by one, and a screen may have 80 columns


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_has_help(name: str) -> None:
    silent = [parameter.name for parameter in ALL[name].params if not getattr(parameter, "help", None)]
    assert silent == []


@pytest.mark.parametrize("name", ALL)
def test_help_texts_have_no_full_stop(name: str) -> None:
    """The style of WORDING: one phrase that starts with a verb."""
    texts = [ALL[name].help.partition("\n")[0], *(parameter.help for parameter in ALL[name].params)]
    assert [text for text in texts if text.endswith(".") and name != "amlctl"] == []
    assert [text for text in texts if not text[0].isupper()] == []


def test_the_exit_codes_are_documented() -> None:
    for code in ("0", "1", "2", "3", "4", "5", "6", "70", "130"):
        assert f" {code} " in ALL["amlctl"].epilog


def test_the_commands_are_all_there() -> None:
    assert set(ALL) - {"amlctl"} == {
        *("init", "sync", "status", "why", "clean", "submit", "logs", "fetch", "cancel", "doctor", "help"),
        *("config", "config show"),
        *("runs", "runs list", "runs show", "runs cancel", "runs compare", "runs open", "runs delete"),
        *("runs plot", "runs report", "runs share", "runs wait"),
        *("compute", "compute list", "compute show", "compute create", "compute start", "compute stop"),
        *("compute delete", "dataset", "dataset list", "dataset show", "dataset remove", "dataset restore"),
        *("env", "env show", "env prepare", "env list", "env remove"),
        *("store", "store stats", "store gc", "store verify"),
    }


@pytest.mark.parametrize("name", MEANT)
def test_a_name_from_another_tool_leads_to_a_command_that_exists(name: str) -> None:
    assert name not in ALL
    commands = [command.words for command in commands_in(MEANT[name])]
    assert commands
    for words in commands:
        named = [word for word in words[:2] if word.isalpha() and word.islower()]
        assert words == ("--version",) or " ".join(named) in ALL, words


def test_the_root_has_lines_only() -> None:
    assert all(type(line) is AppCommand and not line.params for line in root_command().commands.values())
