"""A sample of `every_azure_reply`, which has the whole of it as a command."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.every_azure_reply import FITTING, ONCE, Sweep, opened
from tests.support.azurite import Azurite
from tests.support.warm_command import WarmCommand

SAMPLE = 2
SEED = int(os.environ.get("AMLCTL_TEST_SEED", "1"))


@pytest.fixture
def sweep(azurite: Azurite, warm_sdks: WarmCommand, tmp_path: Path) -> Iterator[Sweep]:
    with ExitStack() as stack:
        yield opened(stack, tmp_path, azurite, warm_sdks)


def test_a_wrong_reply_is_reported_as_what_it_is(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without those that are repeated until the end, which take seconds. One test, since its services take longer."""
    choice = random.Random(SEED)
    for command in ("sync", "submit", "compute show"):
        points = [point for point in sweep.points(command) if point.is_once or point.fault not in ONCE]
        for point in choice.sample(points, SAMPLE):
            assert sweep.failure(point) == "", point
    monkeypatch.setitem(FITTING, "page-200", {0})  # all of this would pass as well if nothing were changed
    page = next(point for point in points if point.fault == "page-200" and point.call.startswith("ml"))
    assert sweep.failure(page).startswith("exit code 6\nerror: Azure ML was not reached")
