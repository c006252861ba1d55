"""Questions to the person at the terminal: before a deletion, and when Ctrl-C interrupts `submit`."""

from __future__ import annotations

import select
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from amlctl.cli import signals
from amlctl.cli.output import Output
from amlctl.errors import NeedsConfirmation

if TYPE_CHECKING:
    from amlctl.operations.logs import InterruptChoice

Result = TypeVar("Result")

_POLL_S = 0.2
_MAX_SHOWN = 10
"""Lines before a question; more would push the question's reason off the screen."""


def asking(act: Callable[[bool], Result], *, is_sure: bool, output: Output) -> Result:
    """The result of `act`, called with whether it is confirmed, and raises NeedsConfirmation where it has to be."""
    try:
        return act(is_sure)
    except NeedsConfirmation as error:
        if not is_confirmed(error, output):
            raise
    return act(True)


def is_confirmed(error: NeedsConfirmation, output: Output) -> bool:
    """False without a terminal to ask on."""
    if not output.can_ask:
        return False
    is_sure = _confirm(f"{error.message}. Continue?", output, error.details)
    if not output.options.is_json:
        error.details = ()  # they stand above the question
    return is_sure


def _confirm(question: str, output: Output, lost: Sequence[str]) -> bool:
    """A yes or no on a terminal, below a list of what would be lost; anything but a yes is a no."""
    for one in lost[:_MAX_SHOWN]:
        output.write_line(f"  {one}")
    if len(lost) > _MAX_SHOWN:
        output.write_line(f"  and {len(lost) - _MAX_SHOWN:,} more")
    output.write_line(question)
    return _answer("y/N: ").strip().lower() in ("y", "yes")


def choose(question: str, names: Sequence[str], output: Output) -> list[str]:
    """By number or name, several separated by blanks; empty: nothing was chosen."""
    output.write_line(question)
    for number, name in enumerate(names, 1):
        output.write_line(f"  {number:>{len(str(len(names)))}}  {name}")
    while typed := _answer("numbers or names (Enter: none): ").split():
        chosen = [names[int(word) - 1] if word.isdecimal() and 0 < int(word) <= len(names) else word for word in typed]
        unknown = [name for name in chosen if name not in names]
        if not unknown:
            return list(dict.fromkeys(chosen))
        output.write_line(f"not in the list: {', '.join(unknown)}")
    return []


def _answer(prompt: str) -> str:
    """A line from the terminal; empty if the terminal is closed."""
    sys.stderr.write(prompt)
    sys.stderr.flush()
    # A Ctrl-C just before a read starts does not end that read, so it starts only once a line is there.
    while not select.select([sys.stdin], [], [], _POLL_S)[0]:
        pass
    return sys.stdin.buffer.readline().decode("utf-8", "replace")


_INTERRUPTED = (
    "",
    "The run is still active. What would you like to do?",
    "  c  cancel it and keep the outputs so far",
    "  l  leave it running (show how to reconnect)",
    "  w  continue watching",
)


def on_interrupt(setting: str, output: Output, clear_screen: Callable[[], None]) -> Callable[[], InterruptChoice]:
    """What Ctrl-C does under `[submit] on_interrupt`: `ask` requires a terminal and cancels without one. SIGTERM does
    what Ctrl-C does without a terminal; SIGHUP detaches.

    `clear_screen` is called before the question, so that nothing is drawn over it.
    """
    from amlctl.operations.logs import InterruptChoice

    answers = {
        **dict.fromkeys(("c", "cancel"), InterruptChoice.CANCEL),
        **dict.fromkeys(("l", "leave"), InterruptChoice.DETACH),
        **dict.fromkeys(("w", "watch"), InterruptChoice.CONTINUE),
    }

    def choose() -> InterruptChoice:
        signalled = signals.received()
        if signalled is signal.SIGHUP or setting == "detach":  # a closed terminal does not end a run
            return InterruptChoice.DETACH
        if signalled is not None or setting != "ask" or not output.can_ask:
            output.write_line(f"{'interrupted' if signalled is None else signalled.name}: canceling the run")
            return InterruptChoice.CANCEL
        clear_screen()
        for line in _INTERRUPTED:
            output.write_line(line)
        while typed := _answer("c/l/w: "):  # a second Ctrl-C makes the caller cancel
            if choice := answers.get(typed.strip().lower()):
                return choice
        return InterruptChoice.DETACH  # the terminal was closed

    return choose
