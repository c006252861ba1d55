"""Errors as a public interface: every class has a kind of its own and a documented exit code."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import amlctl.errors
from amlctl.cli.faults import InternalFault
from amlctl.errors import AmlctlError

DOCUMENTED_CODES = {1, 2, 3, 4, 5, 6, 70, 130}


def all_errors(base: type[AmlctlError] = AmlctlError) -> Iterator[type[AmlctlError]]:
    for error in base.__subclasses__():
        yield error
        yield from all_errors(error)


def public_errors() -> list[type[AmlctlError]]:
    """One that is made elsewhere, and has no kind, is for users the one that it is a case of."""
    return [error for error in all_errors() if error.__module__ == amlctl.errors.__name__ or "kind" in vars(error)]


def test_every_error_has_a_kind_of_its_own() -> None:
    kinds = Counter(error.kind for error in public_errors())
    assert "error" not in kinds
    assert [kind for kind, number in kinds.items() if number > 1] == []


def test_no_error_made_elsewhere_forgets_its_kind() -> None:
    product = Path(amlctl.errors.__file__).parent
    for file in product.rglob("*.py"):
        if re.search(r"^\s*class \w+\([^)]*\bAmlctlError\b", file.read_text(encoding="utf-8"), re.MULTILINE):
            importlib.import_module(".".join(file.relative_to(product.parent).with_suffix("").parts))
    assert [error.__name__ for error in all_errors() if error.kind == AmlctlError.kind] == []


def test_every_error_has_a_documented_code_that_is_the_one_of_its_kind() -> None:
    assert {error.exit_code for error in all_errors()} <= DOCUMENTED_CODES
    assert [error.__name__ for error in all_errors() if "exit_code" in vars(error) and "kind" not in vars(error)] == []


def test_the_tree_is_drawn_as_it_is() -> None:
    drawn = dict(re.findall(r"── (\w+) +(\d+) ", amlctl.errors.__doc__ or ""))
    assert drawn == {error.__name__: str(error.exit_code) for error in public_errors() if error is not InternalFault}
