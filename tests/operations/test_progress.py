"""Progress tells of the inside of a large file, and ends at what was really done."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from amlctl.core.events import Stage, StageProgress
from amlctl.stores.azure_blob.store import AzureBlobStore
from amlctl.stores.azure_blob.upload import Limits
from amlctl.stores.contract import Store
from amlctl.stores.directory import DirectoryStore
from tests.support.azurite import Azurite
from tests.support.clones import Clone
from tests.support.fault_proxy import CutAnswer, FaultProxy, LoseAnswer, Seen, fault_proxy

SIZE = 40 << 20


@pytest.fixture
def slow(azurite: Azurite) -> Iterator[Store]:
    """Every request takes longer than the pause between two tellings."""
    with fault_proxy(azurite.url) as proxy:

        def act(seen: Seen) -> None:
            Event().wait(0.12)

        proxy.act = act
        yield from _opened(proxy, azurite)


def _opened(proxy: FaultProxy, azurite: Azurite) -> Iterator[Store]:
    limits = Limits(single_bytes=1 << 20, block_bytes=4 << 20)
    url = f"{proxy.url}/{azurite.new_container()}"
    store = AzureBlobStore(url, {"AZURE_STORAGE_KEY": azurite.key}, workers=2, limits=limits)
    yield store
    store.close()


def _progress(clone: Clone, stage: Stage) -> list[StageProgress]:
    return [event for event in clone.events if isinstance(event, StageProgress) and event.stage is stage]


def test_a_large_file_moves_on_while_it_is_sent_and_received(slow: Store, tmp_path: Path) -> None:
    one, other = Clone(tmp_path / "one", slow), Clone(tmp_path / "other", slow)
    one.make({"large": b"".join(n.to_bytes(4, "big") for n in range(SIZE // 4))})
    one.sync(pack_below=1000)
    other.pull(pack_below=1000)
    for clone, stage in ((one, Stage.SEND), (other, Stage.RECEIVE)):
        events = _progress(clone, stage)
        assert len({event.done_bytes for event in events if 0 < event.done_bytes < SIZE}) >= 2
        assert all(early.done_bytes <= late.done_bytes for early, late in pairwise(events))
        assert (events[-1].done_files, events[-1].done_bytes, events[-1].is_done) == (1, SIZE, True)


def test_a_pack_counts_as_it_arrives_and_not_when_it_is_made(slow: Store, tmp_path: Path) -> None:
    one, other = Clone(tmp_path / "one", slow), Clone(tmp_path / "other", slow)
    chance = random.Random(1)
    one.make({f"{n:03}": chance.randbytes(100_000) for n in range(400)})
    big: dict[str, Any] = {"pack_size": SIZE, "pack_below": 200_000}
    one.sync(**big)
    other.pull(**big)
    for clone, stage in ((one, Stage.SEND), (other, Stage.RECEIVE)):
        events = _progress(clone, stage)
        on_the_way = {event.done_bytes for event in events} - {0, 40_000_000}
        assert len(on_the_way) >= 2  # one of each request at least; how many more is up to the sockets
        assert any(done_bytes % 100_000 for done_bytes in on_the_way)  # else whole files count as they are packed
        assert {event.total_bytes for event in events} == {40_000_000}
        assert (events[-1].done_files, events[-1].done_bytes, events[-1].is_done) == (400, 40_000_000, True)
        assert [event.is_done for event in events].count(True) == 1


def test_a_request_that_is_made_again_takes_back_what_it_had_moved(azurite: Azurite, tmp_path: Path) -> None:
    with fault_proxy(azurite.url) as proxy:
        lost: list[Seen] = []

        def lose_first(seen: Seen) -> LoseAnswer | CutAnswer | None:
            is_read = seen.verb == "GET" and "/objects/" in seen.path and "comp=" not in seen.path
            if not (seen.is_block or is_read) or any(one.verb == seen.verb for one in lost):
                return None
            lost.append(seen)
            return CutAnswer(1_000_000) if is_read else LoseAnswer()

        proxy.act = lose_first
        for store in _opened(proxy, azurite):
            one, other = Clone(tmp_path / "one", store), Clone(tmp_path / "other", store)
            one.make({"large": random.Random(1).randbytes(12 << 20)})
            one.sync(pack_below=1000)
            other.pull(pack_below=1000)
    assert {one.verb for one in lost} == {"PUT", "GET"}
    for clone, stage in ((one, Stage.SEND), (other, Stage.RECEIVE)):
        done = [event.done_bytes for event in _progress(clone, stage)]
        assert any(late < early for early, late in pairwise(done)), (stage, done)
        assert max(done) == done[-1] == 12 << 20


def test_a_folder_store_ends_at_the_same_figures(tmp_path: Path) -> None:
    clone = Clone(tmp_path / "one", DirectoryStore(tmp_path / "store"))
    clone.make({"large": b"x" * SIZE, "small": b"y" * 5000})
    clone.sync()
    for stage in (Stage.HASH, Stage.SEND):
        assert _progress(clone, stage)[-1].done_bytes == SIZE + 5000
