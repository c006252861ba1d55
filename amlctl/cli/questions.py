"""Questions to the person at the terminal."""

from __future__ import annotations

import select
import sys

from amlctl.cli.output import Output
from amlctl.cli.render.tables import printable
from amlctl.errors import NeedsConfirmation

_LOOK_S = 0.2
_SHOWN = 10
"""Paths that are listed before a question; more would push the question's reason off the screen."""


def is_confirmed(error: NeedsConfirmation, output: Output) -> bool:
    """List what would go, and ask. False without a terminal to ask on."""
    if not output.can_ask:
        return False
    for path in error.details[:_SHOWN]:
        output.write_line(f"  {printable(path)}")
    if len(error.details) > _SHOWN:
        output.write_line(f"  and {len(error.details) - _SHOWN} more")
    return confirm(f"{printable(error.message)}. Continue?", output)


def confirm(question: str, output: Output) -> bool:
    """A yes or no on a terminal; anything but a yes is a no."""
    output.write_line(question)
    return answer("y/N: ").strip().lower() in ("y", "yes")


def answer(prompt: str) -> str:
    """A line from the terminal; empty where that is gone."""
    sys.stderr.write(prompt)
    sys.stderr.flush()
    # A Ctrl-C just before a read begins does not end that read, so none begins before there is a line.
    while not select.select([sys.stdin], [], [], _LOOK_S)[0]:
        pass
    return sys.stdin.readline()
