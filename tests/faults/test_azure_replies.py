"""A sample of `every_azure_reply`, which has the whole of it as a command."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.faults.every_azure_reply import FITTING, ONCE, Sweep, opened
from tests.support.azurite import Azurite
from tests.support.warm_command import WarmCommand

SAMPLE = 3
SEED = int(os.environ.get("AMLCTL_TEST_SEED", "1"))


@pytest.fixture(scope="module")
def sweep(azurite: Azurite, warm_sdks: WarmCommand, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    with ExitStack() as stack:
        yield opened(stack, tmp_path_factory.mktemp("replies"), azurite, warm_sdks)


@pytest.mark.parametrize("command", ["sync", "submit", "compute show"])
def test_a_wrong_reply_is_reported_as_what_it_is(sweep: Sweep, command: str) -> None:
    """Without those that are repeated until the end, which take seconds."""
    points = [point for point in sweep.points(command) if point.is_once or point.fault not in ONCE]
    for point in random.Random(SEED).sample(points, SAMPLE):
        assert sweep.failure(point) == "", point


def test_the_sweep_sees_a_failure(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample above would pass as well if nothing were changed."""
    monkeypatch.setitem(FITTING, "page-200", {0})
    point = next(one for one in sweep.points("compute show") if one.fault == "page-200")
    assert sweep.failure(point).startswith("exit code 6\nerror: Azure ML was not reached")
