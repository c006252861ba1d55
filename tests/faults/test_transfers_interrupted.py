"""Ctrl-C while large files travel: what is under way ends soon, and what has arrived counts the next time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from amlctl.errors import Interrupted
from amlctl.stores.directory import DirectoryStore
from amlctl.stores.wrappers import Pace, PacedStore
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
        process = self._start(arguments)
        code = process.wait(timeout=LIMIT_S)
        self.proxy.act = lambda seen: None
        return code, counted

    def interrupt_in_silence(self, *arguments: str, when: Callable[[Seen], bool]) -> int:
        """Exit code, where Ctrl-C comes while the service does not answer any more what `when` says."""
        has_begun, is_over = Event(), Event()
        first = iter([True])
        process: subprocess.Popen[bytes] | None = None

        def act(seen: Seen) -> None:
            if when(seen):
                assert process is not None
                if next(first, False):  # of several at once one is enough
                    process.send_signal(signal.SIGINT)
                    has_begun.set()
                assert is_over.wait(2 * LIMIT_S)

        self.proxy.act = act
        process = self._start(arguments)
        try:
            assert has_begun.wait(LIMIT_S)
            return process.wait(timeout=LIMIT_S / 3)  # far less than a request is given
        finally:
            process.kill()
            is_over.set()
            self.proxy.act = lambda seen: None

    def _start(self, arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
        """With signals as a shell gives them to what it starts in the foreground."""
        return subprocess.Popen(
            self._command(arguments),
            cwd=self.root,
            env=self.variables,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

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


def test_ctrl_c_does_not_wait_for_the_service(machines: tuple[Machine, Machine]) -> None:
    one, other = machines
    (one.root / "data_blobs/raw/large.bin").write_bytes(random.Random(1).randbytes(20 << 20))
    for number in range(10):
        (one.root / f"data_blobs/raw/{number}").write_bytes(random.Random(number).randbytes(1000))

    def puts(part: str) -> Callable[[Seen], bool]:
        return lambda seen: seen.verb == "PUT" and part in seen.path

    def gets(part: str) -> Callable[[Seen], bool]:
        return lambda seen: seen.verb == "GET" and part in seen.path

    push = ("sync", "data_blobs/raw")
    for part in ("/packs/", "/objects/", "/datasets/"):
        assert one.interrupt_in_silence(*push, when=puts(part)) == 130
    assert one.run(*push) == 0
    for command in ("verify", "gc"):
        assert one.interrupt_in_silence("store", command, when=gets("/datasets/")) == 130
    for part in ("/packs/", "/objects/"):
        assert one.interrupt_in_silence("store", "verify", when=gets(part)) == 130
        assert other.interrupt_in_silence("sync", "--pull", "data_blobs/raw", when=gets(part)) == 130
    (other.root / "data_blobs/working").mkdir(exist_ok=True)
    (other.root / "data_blobs/working/new").write_bytes(b"which another dataset may have")
    foresee = ("sync", "--dry-run", "data_blobs/working")
    assert other.interrupt_in_silence(*foresee, when=gets("/datasets/raw/")) == 130
    assert other.run("sync", "--pull", "data_blobs/raw") == 0


def test_ctrl_c_does_not_wait_for_a_bandwidth(tmp_path: Path) -> None:
    """As `--bwlimit` with a folder: a whole pack has its time after it was written."""
    store = PacedStore(DirectoryStore(tmp_path / "store"), Pace(1))
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(store.put, "packs/ab/abcd.zip", bytes(1 << 20))
        while store.info("packs/ab/abcd.zip") is None and not sending.done():
            os.sched_yield()
        store.interrupt()
        with pytest.raises(Interrupted):
            sending.result(timeout=LIMIT_S)
    store.resume()
    assert store.get("packs/ab/abcd.zip", start=0, length=0) == b""


def test_a_mirror_is_free_at_once_after_ctrl_c(machines: tuple[Machine, Machine]) -> None:
    one, _ = machines
    (one.root / "data_blobs/raw/large.bin").write_bytes(random.Random(1).randbytes(20 << 20))
    push = ("sync", "data_blobs/raw", "--layout", "mirror")
    assert one.interrupt_in_silence(*push, when=lambda seen: seen.is_block) == 130
    freed = [seen for seen in one.proxy.seen if seen.path.endswith("/mirror.lease") and seen.verb == "PUT"]
    assert len(freed) == 2  # taken, and given back
