"""SIGTERM and SIGHUP end a command as Ctrl-C does: what it has begun is cleaned up, then it ends with 128 + the signal.

Both arrive as KeyboardInterrupt, so that there is one way to clean up. A second one ends the process at once, in the
system's own way; what stays behind then is removed by the next command.
"""

from __future__ import annotations

import signal
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)
_received: list[signal.Signals] = []
"""Of this process, as its handlers are."""


def take_over() -> None:
    """From the main thread, before anything begins. What the caller ignores (nohup) stays ignored."""
    for each in _ENDING:
        if signal.getsignal(each) is signal.SIG_DFL:
            signal.signal(each, _interrupt)


def received() -> signal.Signals | None:
    """The signal that ends this command, if it is not Ctrl-C."""
    return _received[0] if _received else None


def end_at_once() -> None:
    """From now on any of the signals, Ctrl-C included, ends the process without more ado: it has cleaned up."""
    for each in (*_ENDING, signal.SIGINT):
        if callable(signal.getsignal(each)):
            signal.signal(each, signal.SIG_DFL)


def exit_code(signalled: signal.Signals) -> int:
    """What a shell shows for a process that the signal has ended: 143, 129."""
    return 128 + signalled


def _interrupt(number: int, frame: FrameType | None) -> None:
    for each in _ENDING:
        if signal.getsignal(each) is _interrupt:
            signal.signal(each, signal.SIG_DFL)
    _received.append(signal.Signals(number))
    raise KeyboardInterrupt
