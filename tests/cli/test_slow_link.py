"""On a slow line the screen says how long it takes: the real command in a terminal, against a line of known speed."""

from __future__ import annotations

import random
import re
import shutil
import time
from itertools import pairwise

from tests.cli.conftest import Cli, StartTerminal
from tests.cli.terminal import Terminal
from tests.support.azurite import Azurite
from tests.support.slow_link import slow_link

MB = 1_000_000
_SHOWN = re.compile(r"(\S+) MB of (\S+) MB (?:\S+ .?B/s) (\S+) s left")


def _watched(screen: Terminal) -> list[tuple[float, float, float]]:
    """When each frame came, its bytes in MB and its time left; the last one is the end."""
    frames = []
    for text in screen.pieces():
        frames += [(time.monotonic(), float(found[1]), float(found[3])) for found in _SHOWN.finditer(text)]
    return frames


def test_a_sync_and_a_pull_say_when_they_will_be_done(project: Cli, terminal: StartTerminal, azurite: Azurite) -> None:
    chance = random.Random(1)
    data = project.cwd / "data_blobs/working/x"
    for name in [*(f"small/{n:03}" for n in range(300)), "large/1", "large/2"]:
        file = data / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(chance.randbytes(MB * 9 // 2 if name.startswith("large") else 30_000))
    with slow_link(azurite.url, 2 * MB) as url:
        store = ("--store", f"{url}/{azurite.new_container()}")
        for pull in ((), ("--pull",)):
            command = project.command("sync", *pull, *store, "data_blobs/working/x")
            screen = terminal(command, project.cwd, variables={"AZURE_STORAGE_KEY": azurite.key})
            frames = _watched(screen)
            assert screen.finish() == 0
            end_s, begin_s = frames[-1][0], frames[0][0]
            assert len(frames) > 20
            assert all(early[1] <= late[1] for early, late in pairwise(frames))
            for at_s, _, left_s in frames[len(frames) // 5 :]:
                # Beside a busy machine and whole seconds; what counted before was off by 10 s.
                assert abs(at_s + left_s - end_s) < 0.25 * (end_s - begin_s) + 1.0, (pull, at_s - begin_s, left_s)
            shutil.rmtree(data)
