"""The simulator finds each fault that is planted into the product."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulator import virtual
from tests.simulator.explore import explore
from tests.simulator.mutants import MUTANTS, Mutant, planted
from tests.simulator.order import Order, Stage
from tests.simulator.scenarios import SCENARIOS
from tests.simulator.scheduler import parse_schedule
from tests.simulator.world import memory_folder

ORDERS = 250
"""At most so many of each scenario: most mutants are found within some dozens."""
SEED = 5


@pytest.fixture
def folder() -> Iterator[Path]:
    found = memory_folder()
    yield found
    shutil.rmtree(found, ignore_errors=True)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_it_is_found(folder: Path, mutant: Mutant) -> None:
    assert found_by(folder, mutant), f"nothing has noticed: {mutant.name}"


def found_by(folder: Path, mutant: Mutant) -> str:
    """The first problem that an order shows, and the order; empty where none does."""
    with virtual.simulated(), planted(mutant):
        for name in mutant.where:
            stage = Stage(SCENARIOS[name], folder)
            for schedule in mutant.schedules:
                outcome = stage.run(Order(name, parse_schedule(schedule)))
                if outcome.problem:
                    return f"{outcome.order}: {outcome.problem}"
            tally = explore(SCENARIOS[name], folder, ORDERS, SEED, most_failures=1)
            if tally.failures:
                outcome = tally.failures[0]
                return f"{outcome.order} after {tally.orders} orders: {outcome.problem}"
    return ""
