"""Packs whose memory is used again while they are still being sent."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event

import pytest

from amlctl.core.content_id import content_id
from amlctl.core.events import Stage, null_sink
from amlctl.core.manifest import FileEntry, StoredAt, empty_manifest
from amlctl.core.store_keys import pack_key
from amlctl.core.sync_plan import SyncPlan
from amlctl.errors import ServiceUnavailable
from amlctl.snapshots import send as module
from amlctl.snapshots.send import PackSender, send_plan
from amlctl.snapshots.transfers import Transfers
from amlctl.stores.contract import Body, FileBody, OnBytes, unobserved
from amlctl.stores.directory import DirectoryStore

_PACK_BYTES = 8 << 20


@pytest.fixture(autouse=True)
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than two packs, so that each needs what the one before has given back."""
    monkeypatch.setattr(module, "_LOCAL_PARTS", 6)


def _contents(number: int) -> Iterator[tuple[FileEntry, bytes]]:
    generator = random.Random(number)
    for at in range(number):
        data = generator.randbytes(700_000)
        yield FileEntry(f"f{at}", len(data), False, content_id(data)), data


def test_each_content_is_in_its_pack_although_the_memory_was_used_again(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    with PackSender(store, None, _PACK_BYTES, Transfers(Stage.SEND, "x", null_sink)) as sender:
        for entry, data in _contents(60):
            sender.add(entry, data)
        sender.finish()
    assert len(sender.pack_sizes) > 3
    for content, place in sender.places.items():
        assert isinstance(place, StoredAt)
        assert content_id(store.get(pack_key(place.pack), start=place.offset, length=place.length)) == content


class _Failing(DirectoryStore):
    def put(self, key: str, body: Body, *, replace: bool = False, on_bytes: OnBytes = unobserved) -> bool:
        assert isinstance(body, Sequence)
        raise ServiceUnavailable("the line is cut", hint="try again")


def test_a_pack_that_fails_gives_its_memory_back_and_is_an_error(tmp_path: Path) -> None:
    def send() -> None:
        with PackSender(_Failing(tmp_path), None, _PACK_BYTES, Transfers(Stage.SEND, "x", null_sink)) as sender:
            for entry, data in _contents(60):
                sender.add(entry, data)
            sender.finish()

    with pytest.raises(ServiceUnavailable, match="the line is cut"):
        send()


class _FailingObject(DirectoryStore):
    """Packs are sent once the object has failed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.has_failed = Event()
        self.packs = 0

    def put(self, key: str, body: Body, *, replace: bool = False, on_bytes: OnBytes = unobserved) -> bool:
        if isinstance(body, FileBody):
            self.has_failed.set()
            raise ServiceUnavailable("the line is cut", hint="try again")
        assert self.has_failed.wait(60)
        self.packs += 1
        return super().put(key, body, replace=replace, on_bytes=on_bytes)


def test_a_file_that_fails_stops_the_packs(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    entries = []
    for entry, data in _contents(60):
        (root / entry.path).write_bytes(data)
        entries.append(entry)
    plan = SyncPlan(entries, "pack", {}, packs=[[entry] for entry in entries[1:]], files=entries[:1])
    store = _FailingObject(tmp_path / "store")
    packs = PackSender(store, None, 1, Transfers(Stage.SEND, "x", null_sink))
    with packs as sender, pytest.raises(ServiceUnavailable, match="the line is cut"):
        send_plan(plan, root, empty_manifest("x"), sender, max_workers=1)
    assert store.packs < 10
