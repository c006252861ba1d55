"""On a slow line the screen tells the truth: the real command in a terminal. What its estimate is worth stands in
`tests/unit/core/test_estimate.py`, against a simulated clock."""

from __future__ import annotations

import random
import re
import shutil
from itertools import pairwise

import pytest

from tests.cli.conftest import Cli, StartTerminal
from tests.support.azurite import Azurite
from tests.support.slow_link import slow_link

MB = 1_000_000
_SHOWN = re.compile(r"(\S+) MB of (\S+) MB (?:\S+ .?B/s) \S+ s left")


@pytest.mark.parametrize("pull", [(), ("--pull",)], ids=["sync", "pull"])
def test_only_what_went_over_the_line_counts(
    project: Cli, terminal: StartTerminal, azurite: Azurite, pull: tuple[str, ...]
) -> None:
    chance = random.Random(1)
    data = project.cwd / "data_blobs/working/x"
    for name in [*(f"small/{n:03}" for n in range(300)), "large/1", "large/2"]:
        file = data / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(chance.randbytes(MB * 9 // 2 if name.startswith("large") else 30_000))
    container, variables = azurite.new_container(), {"AZURE_STORAGE_KEY": azurite.key}
    if pull:
        target = f"{azurite.url}/{container}"
        assert project("sync", "--store", target, "data_blobs/working/x", variables=variables).code == 0
        shutil.rmtree(data)
    with slow_link(azurite.url, 4 * MB) as link:
        command = project.command("sync", *pull, "--store", f"{link.url}/{container}", "data_blobs/working/x")
        screen = terminal(command, project.cwd, variables=variables)
        direction, shown_mb = link.back if pull else link.there, []
        for text in screen.pieces():
            for found in _SHOWN.finditer(text):
                shown_mb.append(float(found[1]))
                # Whole megabytes are shown from ten on, and some wait in the buffers of the connections.
                assert shown_mb[-1] <= direction.carried_bytes / MB + 1
        assert screen.finish() == 0
    assert len(set(shown_mb)) >= 2  # how often the screen is drawn is up to the machine
    assert all(early <= late for early, late in pairwise(shown_mb))
