"""Ctrl-C while large files travel: what is under way ends soon, and what has arrived counts the next time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.azurite import Azurite
from tests.support.fault_proxy import FaultProxy, Seen, fault_proxy

FILE_BYTES = 40 << 20
LIMIT_S = 60


class Machine:
    """A project whose store is behind the proxy, two large files, and the real command."""

    def __init__(self, root: Path, azurite: Azurite, proxy: FaultProxy, container: str) -> None:
        self.root, self.proxy = root, proxy
        (root / "data_blobs/raw").mkdir(parents=True)
        (root / ".amlctl.toml").write_text(
            f'[workspaces.local]\ncompute = "local"\nstore = "{proxy.url}/{container}"\n'
        )
        self.variables = {**os.environ, "AZURE_STORAGE_KEY": azurite.key, "XDG_CACHE_HOME": str(root / "cache")}

    def run(self, *arguments: str) -> int:
        return subprocess.run(self._command(arguments), cwd=self.root, env=self.variables, timeout=LIMIT_S).returncode

    def interrupt(self, *arguments: str, at: int, counts: Callable[[Seen], bool]) -> tuple[int, int]:
        """Exit code and requests that count, where Ctrl-C comes with the `at`-th of them."""
        counted = 0
        process: subprocess.Popen[bytes] | None = None

        def act(seen: Seen) -> None:
            nonlocal counted
            if counts(seen):
                counted += 1
                if counted == at:
                    assert process is not None
                    process.send_signal(signal.SIGINT)

        self.proxy.act = act
        # Signals as a shell gives them to what it starts in the foreground.
        process = subprocess.Popen(
            self._command(arguments),
            cwd=self.root,
            env=self.variables,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        code = process.wait(timeout=LIMIT_S)
        self.proxy.act = lambda seen: None
        return code, counted

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "amlctl", *arguments]


@pytest.fixture
def machines(azurite: Azurite, tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    container = azurite.new_container()
    with fault_proxy(azurite.url) as proxy:
        one, other = (Machine(tmp_path / name, azurite, proxy, container) for name in ("one", "two"))
        yield one, other


def test_ctrl_c_ends_files_under_way(machines: tuple[Machine, Machine]) -> None:
    one, other = machines
    for number in range(2):
        (one.root / f"data_blobs/raw/{number}.bin").write_bytes(random.Random(number).randbytes(FILE_BYTES))
    blocks = 2 * FILE_BYTES >> 22
    code, sent = one.interrupt("sync", "data_blobs/raw", "--bwlimit", "8M", at=3, counts=lambda seen: seen.is_block)
    assert code == 130
    assert sent <= blocks // 2
    one.proxy.seen.clear()
    assert one.run("sync", "data_blobs/raw") == 0
    assert sum(seen.is_block for seen in one.proxy.seen) < blocks

    def is_range(seen: Seen) -> bool:
        return seen.verb == "GET" and "/objects/" in seen.path

    ranges = 2 * FILE_BYTES >> 23
    code, asked = other.interrupt("sync", "--pull", "data_blobs/raw", "--bwlimit", "16M", at=2, counts=is_range)
    assert code == 130
    assert asked <= ranges // 2 + 1
    assert other.run("sync", "--pull", "data_blobs/raw") == 0
    for number in range(2):
        path = f"data_blobs/raw/{number}.bin"
        assert (other.root / path).read_bytes() == (one.root / path).read_bytes()
