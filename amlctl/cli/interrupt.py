"""What Ctrl-C, SIGTERM and SIGHUP mean while `submit` follows its run."""

from __future__ import annotations

import signal
from collections.abc import Callable

from amlctl.cli import signals
from amlctl.cli.output import Output
from amlctl.cli.questions import answer
from amlctl.operations.logs import InterruptChoice

_QUESTION = (
    "The run goes on. What now?",
    "  c  cancel it and keep the outputs so far",
    "  l  leave it running, and say how to take it up again",
    "  w  go on watching",
)
_ANSWERS = {
    **dict.fromkeys(("c", "cancel"), InterruptChoice.CANCEL),
    **dict.fromkeys(("l", "leave"), InterruptChoice.DETACH),
    **dict.fromkeys(("w", "watch"), InterruptChoice.CONTINUE),
}


def on_interrupt(setting: str, output: Output, clear_screen: Callable[[], None]) -> Callable[[], InterruptChoice]:
    """What to do at Ctrl-C under `[submit] on_interrupt`: `ask` needs a terminal and cancels without one. SIGTERM does
    what Ctrl-C does without a terminal; SIGHUP leaves the run alone.

    `clear_screen` is called before the question, so that nothing is drawn over it.
    """

    def choose() -> InterruptChoice:
        signalled = signals.received()
        if signalled is signal.SIGHUP:  # a closed terminal does not end a run
            return InterruptChoice.DETACH
        if setting == "detach":
            return InterruptChoice.DETACH
        if signalled is None and setting == "ask" and output.can_ask:
            return _ask(output, clear_screen)
        output.write_line(f"{'interrupted' if signalled is None else signalled.name}: the run is canceled")
        return InterruptChoice.CANCEL

    return choose


def _ask(output: Output, clear_screen: Callable[[], None]) -> InterruptChoice:
    """Ask until there is an answer. A second Ctrl-C (KeyboardInterrupt) is the caller's to take as CANCEL."""
    clear_screen()
    output.write_line("")
    for line in _QUESTION:
        output.write_line(line)
    while True:
        typed = answer("c/l/w: ")
        if not typed:  # the terminal is gone: a run does not end with it
            return InterruptChoice.DETACH
        choice = _ANSWERS.get(typed.strip().lower())
        if choice is not None:
            return choice
