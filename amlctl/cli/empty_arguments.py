"""No option and no argument of ours has a meaning when it is empty: most often a shell variable had no value."""

from __future__ import annotations

from collections.abc import Sequence

from amlctl.errors import UsageError

_HINT = "give it a value, or leave it out; a shell variable may have had none"


def check_not_empty(arguments: Sequence[str]) -> None:
    """What follows `--` is the script's. Raises UsageError."""
    before = ""
    for argument in arguments:
        if argument == "--":
            return
        name, equals, value = argument.partition("=")
        if not argument:
            what = f"{before} is empty" if before.startswith("-") and "=" not in before else "an argument is empty"
            raise UsageError(what, hint=_HINT)
        if name.startswith("--") and equals and not value:
            raise UsageError(f"{name} is empty", hint=_HINT)
        before = argument
