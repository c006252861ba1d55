"""The conformance suite of stores: every implementation and every wrapper subclasses it.

A subclass gives the fixture `store`, an empty store, and `reopened`, which opens the same one a second time.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from amlctl.core.content_id import content_id
from amlctl.errors import Conflict, NotFound, SettingsError
from amlctl.stores.contract import FileBody, Store

NASTY_KEYS = [
    "packs/ab/abcd.zip",
    "datasets/a b/HEAD",
    'mirror/it\'s "quoted" & 100%?/ünï/日本.txt',
    "mirror/" + "x" * 200,
    "mirror/case/A",
    "mirror/case/a",
]


class StoreSuite:
    @pytest.fixture
    def store(self) -> Store:
        raise AssertionError("a subclass gives it")

    @pytest.fixture
    def reopened(self, store: Store) -> Callable[[], Store]:
        raise AssertionError("a subclass gives it")

    @pytest.mark.parametrize("key", NASTY_KEYS)
    def test_what_was_put_can_be_read_from_anywhere(
        self, store: Store, reopened: Callable[[], Store], key: str
    ) -> None:
        store.check_key(key)
        assert store.put(key, b"bytes") is True
        assert store.get(key) == b"bytes"
        assert reopened().get(key) == b"bytes"
        info = store.info(key)
        assert info is not None
        assert (info.key, info.size_bytes) == (key, 5)

    def test_put_keeps_what_is_there(self, store: Store) -> None:
        store.put("objects/ab/abcd", b"first")
        assert store.put("objects/ab/abcd", b"other") is False
        assert store.get("objects/ab/abcd") == b"first"

    def test_what_is_large_and_there_is_not_sent(self, store: Store) -> None:
        store.put("packs/ab/abcd.zip", bytes(3 << 20))
        sent = store.traffic.sent_bytes
        assert store.put("packs/ab/abcd.zip", bytes(3 << 20)) is False
        assert store.traffic.sent_bytes == sent

    def test_put_replaces_when_asked(self, store: Store) -> None:
        store.put("mirror/d/f", b"first")
        assert store.put("mirror/d/f", b"second", replace=True) is True
        assert store.get("mirror/d/f") == b"second"

    def test_buffers_follow_each_other(self, store: Store) -> None:
        store.put("packs/00/p.zip", [b"one", memoryview(b"two"), bytearray(b"three")])
        assert store.get("packs/00/p.zip") == b"onetwothree"

    def test_more_buffers_than_a_system_takes_at_once(self, store: Store) -> None:
        buffers = [b"%d," % number for number in range(3000)]
        store.put("packs/aa/many.zip", buffers)
        assert store.get("packs/aa/many.zip") == b"".join(buffers)

    def test_an_empty_value_is_a_value(self, store: Store) -> None:
        store.put("mirror/empty", b"")
        assert store.get("mirror/empty") == b""
        assert store.info("mirror/empty") is not None

    def test_file_bodies(self, store: Store, tmp_path: Path) -> None:
        data = bytes(range(256)) * 5000
        path = tmp_path / "body"
        path.write_bytes(data)
        store.put("objects/aa/one", FileBody(path, len(data), content_id(data)))
        assert store.get("objects/aa/one") == data
        target = tmp_path / "back"
        assert store.download("objects/aa/one", target) == len(data)
        assert target.read_bytes() == data

    def test_a_file_with_other_bytes_leaves_nothing(self, store: Store, tmp_path: Path) -> None:
        path = tmp_path / "body"
        path.write_bytes(b"changed meanwhile")
        with pytest.raises(Conflict):
            store.put("objects/aa/one", FileBody(path, 17, content_id(b"what it was")))
        with pytest.raises(Conflict):
            store.put("objects/aa/two", FileBody(tmp_path / "gone", 1, content_id(b"x")))
        assert store.info("objects/aa/one") is None
        assert list(store.list("")) == []

    @pytest.mark.parametrize("size_bytes", [0, 1000, 3 << 20, 10 << 20])
    def test_a_refused_writer_leaves_the_value_as_it_was(self, store: Store, tmp_path: Path, size_bytes: int) -> None:
        path = tmp_path / "body"

        def put(seed: int, most: int) -> int:
            """How often it was called, if it allows `most` calls."""
            asked = 0

            def may_go_on() -> None:
                nonlocal asked
                asked += 1
                if asked > most:
                    raise Conflict("somebody else writes there now")

            data = random.Random(seed).randbytes(size_bytes)
            path.write_bytes(data)
            store.put("mirror/x", FileBody(path, size_bytes, content_id(data), may_go_on=may_go_on), replace=True)
            return asked

        times = put(0, 100)
        assert times
        store.put("mirror/x", b"theirs", replace=True)
        for most in range(times):
            with pytest.raises(Conflict, match="somebody else"):
                put(1 + most, most)
            assert store.get("mirror/x") == b"theirs"

    def test_ranges(self, store: Store) -> None:
        store.put("packs/00/p.zip", b"0123456789")
        assert store.get("packs/00/p.zip", start=3, length=4) == b"3456"
        assert store.get("packs/00/p.zip", start=7) == b"789"
        assert store.get("packs/00/p.zip", start=8, length=100) == b"89"

    def test_what_is_missing_is_not_found(self, store: Store, tmp_path: Path) -> None:
        for read in (
            lambda: store.get("no/such"),
            lambda: store.get("no/such", start=1, length=1),
            lambda: store.download("no/such", tmp_path / "t"),
        ):
            with pytest.raises(NotFound):
                read()
        assert store.info("no/such") is None
        assert store.get_versioned("no/such") is None
        assert store.local_path("no/such") is None
        store.delete("no/such")

    def test_listing(self, store: Store) -> None:
        keys = {"runs/a/1", "runs/a/2", "runs/a/b/3", "runs/ab/4", "other"}
        for key in keys:
            store.put(key, key.encode())
        assert {entry.key for entry in store.list("")} == keys
        assert {entry.key for entry in store.list("runs/a/")} == {"runs/a/1", "runs/a/2", "runs/a/b/3"}
        assert list(store.list("nothing/")) == []
        assert {entry.size_bytes for entry in store.list("runs/ab/")} == {len("runs/ab/4")}

    def test_folders(self, store: Store) -> None:
        for key in ("runs/a/1", "runs/a/2", "runs/a/b/3", "runs/ab/4", "runs/file", "other"):
            store.put(key, b"1")
        assert sorted(store.folders("runs/")) == ["a", "ab"]
        assert store.folders("nothing/") == []

    def test_delete(self, store: Store) -> None:
        store.put("runs/a/1", b"1")
        store.put("runs/a/2", b"2")
        store.delete("runs/a/1")
        assert store.info("runs/a/1") is None
        assert [entry.key for entry in store.list("runs/")] == ["runs/a/2"]
        store.delete("runs/a/2")
        store.put("runs/a/1", b"again")
        assert store.get("runs/a/1") == b"again"

    def test_swap_needs_the_present_version(self, store: Store) -> None:
        first = store.swap("datasets/d/HEAD", b"1", expected=None)
        with pytest.raises(Conflict):
            store.swap("datasets/d/HEAD", b"x", expected=None)
        second = store.swap("datasets/d/HEAD", b"2", expected=first)
        with pytest.raises(Conflict):
            store.swap("datasets/d/HEAD", b"x", expected=first)
        found = store.get_versioned("datasets/d/HEAD")
        assert found is not None
        assert (found.data, found.version) == (b"2", second)

    def test_of_many_swaps_one_wins(self, store: Store, reopened: Callable[[], Store]) -> None:
        version = store.swap("datasets/d/HEAD", b"start", expected=None)
        stores = [reopened() for _ in range(8)]
        ready = threading.Barrier(len(stores))
        won: list[int] = []

        def race(number: int) -> None:
            ready.wait()
            try:
                stores[number].swap("datasets/d/HEAD", b"%d" % number, expected=version)
                won.append(number)
            except Conflict:
                pass

        threads = [threading.Thread(target=race, args=(number,)) for number in range(len(stores))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert store.get("datasets/d/HEAD") == b"%d" % won[0]

    def test_of_many_puts_one_value_stays_whole(self, store: Store, reopened: Callable[[], Store]) -> None:
        bodies = [bytes([number]) * 200_000 for number in range(6)]
        results: list[bool] = []
        threads = [
            threading.Thread(target=lambda body=body: results.append(reopened().put("objects/aa/x", body)))
            for body in bodies
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results.count(True) == 1
        assert store.get("objects/aa/x") in bodies

    @pytest.mark.parametrize("key", ["../outside", "a//b", "/abs", "a/./b", "", "nul\0"])
    def test_keys_that_leave_the_store_are_refused(self, store: Store, key: str) -> None:
        with pytest.raises(SettingsError):
            store.put(key, b"x")
        with pytest.raises(SettingsError):
            store.get(key)
        with pytest.raises(SettingsError):
            store.check_key(key)

    def test_traffic_counts(self, store: Store) -> None:
        before = (store.traffic.requests, store.traffic.sent_bytes, store.traffic.received_bytes)
        store.put("runs/a/1", b"12345")
        store.get("runs/a/1")
        assert store.traffic.requests - before[0] == 2
        assert store.traffic.sent_bytes - before[1] == 5
        assert store.traffic.received_bytes - before[2] == 5

    def test_the_url_holds_no_secret(self, store: Store) -> None:
        assert "sig=" not in store.url
        assert "AccountKey" not in store.url

    @pytest.mark.parametrize("is_there", [True, False])
    def test_a_value_like_another_one(self, store: Store, tmp_path: Path, is_there: bool) -> None:
        """Copied within the store or sent: the same for who reads it."""
        data = b"the same bytes" * 1000
        path = tmp_path / "file"
        path.write_bytes(data)
        if is_there:
            store.put("a/one", data)
        body = FileBody(path, len(data), content_id(data), same_as="a/one")
        assert store.put("a/two", body) is True
        assert store.get("a/two") == data
        assert store.put("a/two", body) is False
