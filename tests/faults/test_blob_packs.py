"""Packs in blocks: side by side, resumed after a break, whole or not there; on Azurite."""

from __future__ import annotations

import base64
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from azure.storage.blob import BlobClient

from amlctl.errors import Conflict, ServiceUnavailable
from amlctl.stores.azure_blob.store import AzureBlobStore
from amlctl.stores.azure_blob.upload import Limits
from tests.support.azurite import Azurite
from tests.support.fault_proxy import FaultProxy, LoseAnswer, LoseRequest, Reply, Seen, fault_proxy

BLOCK = 16 << 10
KEY = "packs/ab/pack.zip"
# Parts that end anywhere, and more than a whole number of blocks.
PARTS = [random.Random(number).randbytes(30 if number % 2 else 5000) for number in range(70)]
WHOLE = b"".join(PARTS)


@pytest.fixture
def proxy(azurite: Azurite) -> Iterator[FaultProxy]:
    with fault_proxy(azurite.url) as running:
        yield running


@pytest.fixture
def container(azurite: Azurite) -> str:
    return azurite.new_container()


@pytest.fixture
def store(azurite: Azurite, proxy: FaultProxy, container: str) -> Iterator[AzureBlobStore]:
    opened = AzureBlobStore(
        f"{proxy.url}/{container}/p",
        {"AZURE_STORAGE_KEY": azurite.key},
        workers=4,
        limits=Limits(single_bytes=BLOCK, pack_block_bytes=BLOCK),
        sleep=lambda seconds: None,
    )
    opened.put("first", b"")
    proxy.seen.clear()
    yield opened
    opened.close()


def test_blocks_of_a_pack_are_under_way_at_the_same_time(store: AzureBlobStore, proxy: FaultProxy) -> None:
    together = threading.Barrier(3, timeout=20)
    held: list[Seen] = []

    def hold(seen: Seen) -> None:
        if seen.is_block and len(held) < 3:
            held.append(seen)
            together.wait()  # breaks with fewer than three

    proxy.act = hold
    assert store.put(KEY, PARTS) is True
    assert not together.broken
    assert store.get(KEY) == WHOLE


def test_a_pack_that_is_there_is_not_sent_again(store: AzureBlobStore, proxy: FaultProxy) -> None:
    store.put(KEY, PARTS)
    sent = proxy.sent_block_bytes
    assert sent == len(WHOLE)
    assert store.put(KEY, PARTS) is False
    assert proxy.sent_block_bytes == sent


def test_an_interrupted_pack_is_resumed(store: AzureBlobStore, proxy: FaultProxy) -> None:
    arrived = 0

    def stop_after_five(seen: Seen) -> LoseRequest | None:
        nonlocal arrived
        arrived += seen.is_block
        return LoseRequest() if arrived > 5 else None

    proxy.act = stop_after_five
    with pytest.raises(ServiceUnavailable):
        store.put(KEY, PARTS)
    proxy.act = lambda seen: None
    assert store.info(KEY) is None
    proxy.seen.clear()
    otherwise_cut = [WHOLE[at : at + 7777] for at in range(0, len(WHOLE), 7777)]
    assert store.put(KEY, otherwise_cut) is True
    assert 0 < proxy.sent_block_bytes < len(WHOLE) * 3 / 4
    assert store.get(KEY) == WHOLE


def test_a_damaged_pack_is_sent_again_whole(store: AzureBlobStore, proxy: FaultProxy) -> None:
    store.put(KEY, PARTS)
    proxy.seen.clear()
    assert store.put(KEY, PARTS, replace=True) is True
    assert proxy.sent_block_bytes == len(WHOLE)
    assert store.get(KEY) == WHOLE


def test_a_lost_answer_to_the_list(store: AzureBlobStore, proxy: FaultProxy) -> None:
    lost: list[Seen] = []

    def lose_once(seen: Seen) -> LoseAnswer | None:
        if "comp=blocklist" in seen.path and seen.verb == "PUT" and not lost:
            lost.append(seen)
            return LoseAnswer()
        return None

    proxy.act = lose_once
    assert store.put(KEY, PARTS) is True
    assert lost
    assert store.get(KEY) == WHOLE


def test_two_writers_of_one_pack(store: AzureBlobStore, proxy: FaultProxy) -> None:
    """Who comes second finds its blocks gone into the value of the first, and the value there."""
    both = threading.Barrier(2, timeout=20)

    def meet(seen: Seen) -> None:
        if "comp=blocklist" in seen.path and seen.verb == "PUT":
            both.wait()

    proxy.act = meet
    with ThreadPoolExecutor(2) as pool:
        results = sorted(pool.map(lambda _: store.put(KEY, PARTS), range(2)))
    assert results == [False, True]
    assert store.get(KEY) == WHOLE


def test_blocks_that_are_gone_are_not_taken_for_a_value(store: AzureBlobStore, proxy: FaultProxy) -> None:
    """As where someone has made the value meanwhile, and deleted it again: the service drops all blocks then."""
    gone = Reply(400, {"x-ms-request-id": "1", "x-ms-error-code": "InvalidBlockList"})
    proxy.act = lambda seen: gone if "comp=blocklist" in seen.path and seen.verb == "PUT" else None
    with pytest.raises(Conflict, match="someone else"):
        store.put(KEY, PARTS)
    proxy.act = lambda seen: None
    assert store.put(KEY, PARTS) is True
    assert store.get(KEY) == WHOLE


def test_blocks_of_another_program_do_not_hinder(store: AzureBlobStore, azurite: Azurite, container: str) -> None:
    with BlobClient.from_blob_url(f"{azurite.url}/{container}/p/{KEY}", credential=azurite.key) as blob:
        blob.stage_block(base64.b64encode(b"1").decode(), b"x" * 100)
    assert store.put(KEY, PARTS) is True
    assert store.get(KEY) == WHOLE
