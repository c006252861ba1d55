"""Bytes under way: never more than the budget, except for one part that is larger; whatever ends a job gives back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock, Thread

import pytest

from amlctl.stores.azure_blob.upload import ByteBudget

LIMIT_S = 60


def _taker(budget: ByteBudget, size_bytes: int) -> tuple[Thread, Event]:
    """A thread that takes, and what it sets once it has."""
    has_taken = Event()

    def take() -> None:
        budget.take(size_bytes)
        has_taken.set()

    thread = Thread(target=take, daemon=True)
    thread.start()
    return thread, has_taken


def test_many_threads_stay_within_it() -> None:
    budget, lock, used, most = ByteBudget(100), Lock(), 0, 0

    def work(size_bytes: int) -> None:
        nonlocal used, most
        with budget.taken(size_bytes):
            with lock:
                used += size_bytes
                most = max(most, used)
            with lock:
                used -= size_bytes

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [7, 30, 61, 99, 100, 1] * 50))
    assert used == 0
    assert most <= 100


def test_a_part_that_is_larger_waits_until_all_else_is_free() -> None:
    budget = ByteBudget(100)
    budget.take(1)
    thread, has_taken = _taker(budget, 1000)
    assert not has_taken.wait(0.05)
    budget.give_back(1)
    assert has_taken.wait(LIMIT_S)
    later, has_later_taken = _taker(budget, 1)
    assert not has_later_taken.wait(0.05)
    budget.give_back(1000)
    assert has_later_taken.wait(LIMIT_S)
    for one in (thread, later):
        one.join()


def test_a_block_that_fails_gives_back() -> None:
    budget = ByteBudget(10)
    with pytest.raises(ValueError, match="of the block"), budget.taken(10):
        raise ValueError("of the block")
    assert _taker(budget, 10)[1].wait(LIMIT_S)


def _fails() -> None:
    raise ValueError("of the job")


def test_a_job_gives_back_when_it_ends_fails_or_is_canceled() -> None:
    budget, goes_on = ByteBudget(10), Event()
    with ThreadPoolExecutor(1) as pool:
        budget.take(4)
        running = budget.submit(pool, 4, lambda: goes_on.wait(LIMIT_S))
        budget.take(6)
        waiting = budget.submit(pool, 6, lambda: True)
        assert waiting.cancel()
        assert _taker(budget, 6)[1].wait(LIMIT_S)
        budget.give_back(6)
        goes_on.set()
        assert running.result()
        budget.take(10)
        assert isinstance(budget.submit(pool, 10, _fails).exception(), ValueError)
        assert _taker(budget, 10)[1].wait(LIMIT_S)


def test_a_pool_that_is_closed_gives_back() -> None:
    budget, pool = ByteBudget(10), ThreadPoolExecutor(1)
    pool.shutdown()
    budget.take(10)
    with pytest.raises(RuntimeError):
        budget.submit(pool, 10, lambda: True)
    assert _taker(budget, 10)[1].wait(LIMIT_S)
