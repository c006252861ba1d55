"""Downloads that are cut off: what has arrived is not asked for again, and what is wrong is never used."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from amlctl.core.content_id import content_id
from amlctl.errors import IntegrityError, ServiceUnavailable
from amlctl.snapshots.contents import Value, downloaded
from amlctl.stores.azure_blob.store import AzureBlobStore
from tests.support.azurite import Azurite
from tests.support.clones import Clone
from tests.support.fault_proxy import CutAnswer, FaultProxy, Reply, Seen, fault_proxy

RANGE = 8 << 20
DATA = random.Random(11).randbytes(44 << 20)  # six ranges
KEY = "packs/aa/large.zip"


@pytest.fixture
def proxy(azurite: Azurite) -> Iterator[FaultProxy]:
    with fault_proxy(azurite.url) as running:
        yield running


@pytest.fixture
def store(azurite: Azurite, proxy: FaultProxy) -> Iterator[AzureBlobStore]:
    variables = {"AZURE_STORAGE_KEY": azurite.key}
    opened = AzureBlobStore(f"{proxy.url}/{azurite.new_container()}", variables, workers=2, sleep=lambda s: None)
    opened.put(KEY, DATA)
    proxy.seen.clear()
    yield opened
    opened.close()


def _download(store: AzureBlobStore, folder: Path, reported: list[int] | None = None) -> bytes:
    on_bytes = (lambda size: None) if reported is None else reported.append
    arriving = downloaded(store, KEY, Value(content_id(DATA), len(DATA)), folder, mode=0o666, on_bytes=on_bytes)
    with arriving as temporary:
        return temporary.read_bytes()


def _starts(proxy: FaultProxy) -> list[int]:
    """Of the ranges that were asked for."""
    return [_start(one) for one in proxy.seen if one.verb == "GET"]


@pytest.mark.parametrize("first_bad", [0, RANGE, 3 * RANGE])
def test_the_next_download_asks_for_the_rest(
    store: AzureBlobStore, proxy: FaultProxy, tmp_path: Path, first_bad: int
) -> None:
    proxy.act = lambda seen: Reply(503) if seen.verb == "GET" and _start(seen) >= first_bad else None
    with pytest.raises(ServiceUnavailable):
        _download(store, tmp_path)
    proxy.act = lambda seen: None
    proxy.seen.clear()
    reported: list[int] = []
    assert _download(store, tmp_path, reported) == DATA
    assert sorted(_starts(proxy)) == list(range(first_bad, len(DATA), RANGE))
    assert sum(reported) == len(DATA)
    assert list(tmp_path.iterdir()) == []


def _start(seen: Seen) -> int:
    return int(_range(seen).removeprefix("bytes=").split("-")[0])


def _range(seen: Seen) -> str:
    """Empty where the whole value was asked for."""
    headers = {name.lower(): value for name, value in seen.headers.items()}
    return headers.get("x-ms-range") or headers.get("range", "")


def test_what_has_arrived_of_a_file_is_not_used_for_an_executable_one(
    store: AzureBlobStore, proxy: FaultProxy, tmp_path: Path
) -> None:
    proxy.act = lambda seen: Reply(503) if seen.verb == "GET" and _start(seen) >= RANGE else None
    with pytest.raises(ServiceUnavailable):
        _download(store, tmp_path)
    proxy.act = lambda seen: None
    with downloaded(store, KEY, Value(content_id(DATA), len(DATA)), tmp_path, mode=0o777) as arrived:
        assert os.access(arrived, os.X_OK)


def test_an_answer_that_is_cut_short_is_asked_for_again(
    store: AzureBlobStore, proxy: FaultProxy, tmp_path: Path
) -> None:
    cuts = [CutAnswer(1000), CutAnswer(RANGE - 1)]
    proxy.act = lambda seen: cuts.pop() if seen.verb == "GET" and cuts else None
    assert _download(store, tmp_path) == DATA
    assert len(_starts(proxy)) == 6 + 2


def test_a_list_that_says_too_much_does_no_harm(store: AzureBlobStore, tmp_path: Path) -> None:
    """As after a power cut: the list was written, the bytes were not."""
    stable = tmp_path / f".amlctl-tmp-{content_id(DATA)}"
    stable.write_bytes(b"")
    stable.with_name(f"{stable.name}.parts").write_bytes(
        b"".join((n * RANGE).to_bytes(8, "little") + RANGE.to_bytes(8, "little") for n in range(3)) + b"cut"
    )
    assert _download(store, tmp_path) != DATA
    assert _download(store, tmp_path) == DATA


def test_two_downloads_at_once_do_not_share_a_file(store: AzureBlobStore, tmp_path: Path) -> None:
    arriving = [downloaded(store, KEY, Value(content_id(DATA), len(DATA)), tmp_path, mode=0o666) for _ in range(2)]
    with arriving[0] as one, arriving[1] as two:
        assert one != two
        assert one.read_bytes() == two.read_bytes() == DATA
    assert list(tmp_path.iterdir()) == []


def test_a_pull_is_resumed_inside_a_file(azurite: Azurite, proxy: FaultProxy, tmp_path: Path) -> None:
    container, variables = azurite.new_container(), {"AZURE_STORAGE_KEY": azurite.key}
    stores = [AzureBlobStore(f"{url}/{container}", variables, sleep=lambda s: None) for url in (azurite.url, proxy.url)]
    one, other = (Clone(tmp_path / str(number), store) for number, store in enumerate(stores))
    one.make({"large": DATA})
    one.sync(pack_below=1000)
    proxy.act = lambda seen: Reply(503) if seen.verb == "GET" and _range(seen) and _start(seen) else None
    with pytest.raises(ServiceUnavailable):
        other.pull(pack_below=1000)
    assert not (other.root / "large").exists()
    proxy.act = lambda seen: None
    proxy.seen.clear()
    other.pull(pack_below=1000)
    assert other.tree == {"large": DATA}
    asked = [_start(seen) for seen in proxy.seen if seen.verb == "GET" and "/objects/" in seen.path]
    assert sorted(asked) == list(range(RANGE, len(DATA), RANGE))
    for store in stores:
        store.close()


def test_a_damaged_object_is_not_kept(azurite: Azurite, tmp_path: Path) -> None:
    store = AzureBlobStore(f"{azurite.url}/{azurite.new_container()}", {"AZURE_STORAGE_KEY": azurite.key})
    clone, other = (Clone(tmp_path / name, store) for name in ("one", "two"))
    clone.make({"large": DATA})
    clone.sync(pack_below=1000)
    [key] = [entry.key for entry in store.list("objects/")]
    store.put(key, DATA[:-1] + b"?", replace=True)
    with pytest.raises(IntegrityError):
        other.pull(pack_below=1000)
    assert list(other.root.iterdir()) == []
    store.close()
