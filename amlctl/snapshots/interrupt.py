"""Ctrl-C, SIGTERM or SIGHUP ends what travels, also in the middle of a large value.

Python tells the main thread alone, and that one waits for the threads that send and receive; they in turn wait for
the network, on a slow line for long. So the store is told as well, and ends their requests.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread, current_thread, main_thread

from amlctl.stores.contract import Store

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ended_by_interrupt(*stores: Store) -> Iterator[None]:
    """Within it Ctrl-C, SIGTERM and SIGHUP also interrupt the stores, which can be used again afterwards."""
    ending = {each for each in _ENDING if callable(signal.getsignal(each))}
    if current_thread() is not main_thread() or not ending:
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def watch() -> None:
        while told := os.read(reading, 1):
            if told[0] in ending:
                for store in stores:
                    store.interrupt()

    watcher = Thread(target=watch, daemon=True, name="amlctl-interrupt")
    watcher.start()
    # Not by a handler: it runs in the main thread alone, and waits where that one was just about to wait.
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        watcher.join()
        os.close(reading)
        for store in stores:
            store.resume()
