"""Global options anywhere on the command line."""

from __future__ import annotations

import pytest

from amlctl.cli.global_options import hoist
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
def test_a_missing_value_is_told(typed: list[str]) -> None:
    with pytest.raises(UsageError, match="needs a value"):
        hoist(typed)
