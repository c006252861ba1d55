"""Global options anywhere on the command line; empty values are refused."""

from __future__ import annotations

import pytest

from amlctl.cli.arguments import check_not_empty, hoist
from amlctl.errors import UsageError


@pytest.mark.parametrize(
    ("typed", "hoisted", "rest"),
    [
        ([], [], []),
        (["sync", "a"], [], ["sync", "a"]),
        (["--json", "sync", "a"], ["--json"], ["sync", "a"]),
        (["sync", "a", "--json", "-v"], ["--json", "-v"], ["sync", "a"]),
        (["sync", "--workspace", "cloud", "a"], ["--workspace", "cloud"], ["sync", "a"]),
        (["sync", "--workspace=cloud", "a"], ["--workspace=cloud"], ["sync", "a"]),
        (["runs", "show", "@last", "--project", "/x y"], ["--project", "/x y"], ["runs", "show", "@last"]),
        (["submit", "a.py", "--", "--json", "-v"], [], ["submit", "a.py", "--", "--json", "-v"]),
        (["submit", "--json", "a.py", "--", "--json"], ["--json"], ["submit", "a.py", "--", "--json"]),
        (["submit", "--name=--json", "a.py"], [], ["submit", "--name=--json", "a.py"]),
        (["submit", "--name", "--json", "a.py"], ["--json"], ["submit", "--name", "a.py"]),
        (["submit", "--json=x"], [], ["submit", "--json=x"]),
        (["--version"], ["--version"], []),
    ],
)
def test_hoist(typed: list[str], hoisted: list[str], rest: list[str]) -> None:
    assert hoist(typed) == (hoisted, rest)


@pytest.mark.parametrize("typed", [["sync", "--workspace"], ["--project", "--json"], ["--workspace", "--", "x"]])
def test_a_missing_value_is_reported(typed: list[str]) -> None:
    with pytest.raises(UsageError, match="requires a value"):
        hoist(typed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--project", "", "status"], "--project is empty"),
        (["--project=", "status"], "--project is empty"),
        (["fetch", "@last", "--to", ""], "--to is empty"),
        (["submit", "x.py", "--experiment="], "--experiment is empty"),
        (["init", ""], "an argument is empty"),
        (["submit", "--name=a", ""], "an argument is empty"),
    ],
)
def test_an_empty_argument_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_not_empty(arguments)
    assert caught.value.message == message


@pytest.mark.parametrize("arguments", [["submit", "x.py", "--env", "A="], ["submit", "x.py", "--", "", "--y="], []])
def test_values_and_what_belongs_to_the_script_may_be_empty(arguments: list[str]) -> None:
    check_not_empty(arguments)
