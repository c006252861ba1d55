"""SIGTERM and SIGHUP end a command as Ctrl-C does: it cleans up, then exits with 128 + the signal.

Both arrive as KeyboardInterrupt, so that there is one way to clean up. A second one ends the process at once, by the
system's default action; the next command removes what is left.
"""

from __future__ import annotations

import signal
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_received: list[signal.Signals] = []
"""Process-wide, like the handlers."""


def take_over() -> None:
    """Call from the main thread, before anything else. Signals that the caller ignores (nohup) stay ignored."""
    for each in _ENDING:
        if signal.getsignal(each) is signal.SIG_DFL:
            signal.signal(each, _interrupt)


def received() -> signal.Signals | None:
    """The signal that ends this command, if it is not Ctrl-C."""
    return _received[0] if _received else None


def end_at_once() -> None:
    """From now on any of the signals, Ctrl-C included, ends the process at once: it has cleaned up."""
    for each in (*_ENDING, signal.SIGINT):
        if callable(signal.getsignal(each)):
            signal.signal(each, signal.SIG_DFL)


def exit_code(signalled: signal.Signals) -> int:
    """The exit code that a shell shows for a process ended by the signal: 143, 129."""
    return 128 + signalled


def _interrupt(number: int, frame: FrameType | None) -> None:
    for each in _ENDING:
        if signal.getsignal(each) is _interrupt:
            signal.signal(each, signal.SIG_DFL)
    _received.append(signal.Signals(number))
    raise KeyboardInterrupt
