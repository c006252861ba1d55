from __future__ import annotations

import pytest

from amlctl.cli.empty_arguments import check_not_empty
from amlctl.errors import UsageError


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--project", "", "status"], "--project is empty"),
        (["--project=", "status"], "--project is empty"),
        (["fetch", "@last", "--to", ""], "--to is empty"),
        (["submit", "x.py", "--experiment="], "--experiment is empty"),
        (["init", ""], "an argument is empty"),
        (["submit", "--name=a", ""], "an argument is empty"),
    ],
)
def test_an_empty_argument_is_named(arguments: list[str], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_not_empty(arguments)
    assert caught.value.message == told


@pytest.mark.parametrize("arguments", [["submit", "x.py", "--env", "A="], ["submit", "x.py", "--", "", "--y="], []])
def test_values_and_what_belongs_to_the_script_may_be_empty(arguments: list[str]) -> None:
    check_not_empty(arguments)
