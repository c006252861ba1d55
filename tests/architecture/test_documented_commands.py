"""Every command that a document shows is one that amlctl takes, with its options and arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from amlctl.cli.app import root_command
from amlctl.cli.arguments import check_not_empty, hoist, with_submit
from amlctl.errors import UsageError
from tests.support.documents import DOCUMENTS, commands_of, lines_of


def parse(command: Any, arguments: list[str], parent: Any = None) -> None:
    """As `amlctl` does, to the last subcommand, and run nothing. Raises UsageError, TyperException."""
    context = command.make_context(command.name, arguments, parent=parent)
    rest = [*context._protected_args, *context.args] if isinstance(command, TyperGroup) else []
    if rest:
        name, inner, inner_arguments = command.resolve_command(context, rest)
        assert inner is not None, name
        parse(inner, inner_arguments, context)


def problem_of(words: list[str]) -> str:
    try:
        check_not_empty(words)
        hoisted, rest = hoist(words)
        root = root_command()
        for param in root.params:
            param.callback = None  # that of --install-completion changes the user's files
        parse(root, [*hoisted, *with_submit(rest)])
    except typer.Exit:  # --help
        return ""
    except UsageError as error:
        return error.message
    except typer.TyperException as error:
        return error.format_message()
    return ""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda one: one.name)
def test_documented_commands_exist(document: Path) -> None:
    problems = [
        f"{line}: {problem}"
        for line in lines_of(document)
        for words in commands_of(line)
        if (problem := problem_of(words))
    ]
    assert problems == []


@pytest.mark.parametrize(
    "words", [["synk"], ["sync", "--pul", "x"], ["runs", "report", "--output"], ["submit", "a.py", "b.py"], ["why"]]
)
def test_a_wrong_command_is_found(words: list[str]) -> None:
    assert problem_of(words)
