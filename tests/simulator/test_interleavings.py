"""A sample of what `python -m tests.simulator` tries: some 2,000 orders, in less than a minute of processor time."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator import virtual
from tests.simulator.explore import explore
from tests.simulator.order import Order, Stage, parse_order
from tests.simulator.scenarios import SCENARIOS
from tests.simulator.scheduler import Fault
from tests.simulator.world import memory_folder

ORDERS = 2_000
SEED = 11
_MOST_S = 60.0 / len(SCENARIOS)
"""Of processor time, for each scenario."""


@pytest.fixture
def folder() -> Iterator[Path]:
    found = memory_folder()
    yield found
    shutil.rmtree(found, ignore_errors=True)


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_whatever_the_order_nothing_is_lost(folder: Path, name: str) -> None:
    ends = time.process_time() + _MOST_S
    with virtual.simulated():
        tally = explore(
            SCENARIOS[name], folder, -(-ORDERS // len(SCENARIOS)), SEED, stop_at=lambda: time.process_time() > ends
        )
    reported = [
        f"{outcome.problem}\n  again: python -m tests.simulator --replay '{outcome.order}'"
        for outcome in tally.failures
    ]
    assert not reported, "\n".join(reported)


def test_an_order_can_be_written_down_and_read_again() -> None:
    order = Order("sync+gc", (("a", 3), ("g", 0)), Fault("g", 2, "kill-after"), "sync")
    assert str(order) == "sync+gc:a3g:g2!kill-after:sync"
    assert parse_order(str(order)) == order
    assert parse_order("sync+gc:a3g") == Order("sync+gc", (("a", 3), ("g", 0)))


def test_the_same_order_makes_the_same_calls(folder: Path) -> None:
    order = parse_order("sync+sync+gc:a4b3g2a2b:b5!lost:pull")
    with virtual.simulated():
        first, second = (Stage(SCENARIOS[order.scenario], folder).run(order) for _ in range(2))
    assert first.trace == second.trace
    assert first.refusals == second.refusals
    assert len({step.actor for step in first.trace}) == 3
