"""Threads: several calls at a time, whose first error stops the rest; and Ctrl-C while they wait for a network."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import BoundedSemaphore, Thread, current_thread, main_thread
from typing import Callable, Protocol, TypeVar

from amlctl.errors import Interrupted

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class _Skipped(Exception):
    """The call was not made: another one has failed."""


class Stop:
    """Tells calls that are under way to end early. Thread-safe; may be called more than once."""

    def __init__(self) -> None:
        self._is_called = False

    def __call__(self) -> None:
        self._is_called = True

    def check(self) -> None:
        """Raises Interrupted once it was called."""
        if self._is_called:
            raise Interrupted("stopped")


def _nothing() -> None:
    """No call needs to be told to stop."""


def in_parallel(
    call: Callable[[_Item], _Result],
    items: Iterable[_Item],
    at_a_time: int,
    *,
    stop: Callable[[], None] = _nothing,
) -> Iterator[_Result]:
    """The results of `call` for all items, in their order, from up to `at_a_time` threads.

    The first error, of a call or of the caller's loop, is raised once the calls under way have ended; no further one
    begins. `stop` tells those under way to end early; it may be called from any thread, and more than once.
    """
    todo = list(items)
    errors: list[BaseException] = []

    def guarded(item: _Item) -> _Result:
        if errors:
            raise _Skipped
        try:
            return call(item)
        except BaseException as error:
            errors.append(error)
            stop()
            raise

    with ThreadPoolExecutor(max(1, min(at_a_time, len(todo)))) as pool:
        try:
            jobs = deque(pool.submit(guarded, item) for item in todo)
            while jobs:
                yield jobs.popleft().result()  # not kept: all together may be much
        except BaseException as error:
            if isinstance(error, _Skipped) or any(error is one for one in errors):
                raise errors[0] from errors[0].__cause__  # what was stopped for it has failed, too
            errors.append(error)
            stop()
            raise


def for_each(
    call: Callable[[_Item], object], items: Iterable[_Item], at_a_time: int, *, stop: Callable[[], None] = _nothing
) -> None:
    """As `in_parallel`, for calls whose results do not matter."""
    for _ in in_parallel(call, items, at_a_time, stop=stop):
        pass


@contextmanager
def in_background(call: Callable[[], _Result]) -> Iterator[Future[_Result]]:
    """Make the call while the block runs, which gets its future result. The block ends after the call."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(call)


@contextmanager
def alongside(call: Callable[[], _Result], stop: Stop) -> Iterator[Future[_Result]]:
    """As `in_background`, where an error of one side stops the other: the first one is raised."""
    with in_background(call) as future:
        try:
            yield future
            future.result()
        except BaseException as error:
            stop()
            cause = future.exception() if isinstance(error, Interrupted) else None
            if cause is not None and not isinstance(cause, Interrupted):
                raise cause from cause.__cause__  # this side was only stopped
            raise


_LONGEST_WAIT_S = 0.5


class Turns:
    """For many short calls of many threads, which would wait for the interpreter, not for the disk. Where the disk is
    slow no thread waits long for its turn: then it is the disk that all of them wait for."""

    def __init__(self, at_a_time: int) -> None:
        self._free = BoundedSemaphore(at_a_time)

    @contextmanager
    def turn(self) -> Iterator[None]:
        is_ours = self._free.acquire(timeout=_LONGEST_WAIT_S)
        try:
            yield
        finally:
            if is_ours:
                self._free.release()


class Interruptible(Protocol):
    """A store, say: ends what waits for a network at once, until `resume`."""

    def interrupt(self) -> None: ...

    def resume(self) -> None: ...


_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ended_by_interrupt(*waiting: Interruptible) -> Iterator[None]:
    """Within it Ctrl-C, SIGTERM and SIGHUP also interrupt `waiting`, which can be used again afterwards.

    Python raises KeyboardInterrupt in the main thread alone. That one waits for the threads that send and receive,
    and they for the network, on a slow line for long.
    """
    ending = {each for each in _ENDING if callable(signal.getsignal(each))}
    if current_thread() is not main_thread() or not ending:
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def watch() -> None:
        while received := os.read(reading, 1):
            if received[0] in ending:
                for each in waiting:
                    each.interrupt()

    watcher = Thread(target=watch, daemon=True, name="amlctl-interrupt")
    watcher.start()
    # A handler would not do: it runs in the main thread, which may be about to wait.
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        watcher.join()
        os.close(reading)
        for each in waiting:
            each.resume()
