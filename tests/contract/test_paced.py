"""A store behind a bandwidth limit keeps the promises of stores, and the rate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from amlctl.core.content_id import content_id
from amlctl.stores.contract import FileBody, Store
from amlctl.stores.directory import DirectoryStore
from amlctl.stores.wrappers import Pace, PacedStore, StoreWrapper
from tests.contract.store import StoreSuite


class TestPacedStore(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return PacedStore(DirectoryStore(tmp_path / "store"), Pace(1e12))

    @pytest.fixture
    def reopened(self, tmp_path: Path) -> Callable[[], Store]:
        return lambda: PacedStore(DirectoryStore(tmp_path / "store"), Pace(1e12))


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def test_the_average_keeps_the_rate(tmp_path: Path) -> None:
    time = Time()
    store = PacedStore(DirectoryStore(tmp_path / "store"), Pace(1000, clock=time.clock, sleep=time.sleep))
    (tmp_path / "file").write_bytes(b"x" * 2000)
    store.put("objects/aa/one", b"x" * 1000)
    store.put("objects/aa/two", FileBody(tmp_path / "file", 2000, content_id(b"x" * 2000)))
    store.put("packs/aa/three.zip", [b"x" * 500, memoryview(b"y" * 500)])
    assert time.now_s == pytest.approx(104.0)
    store.get("objects/aa/two")
    store.download("objects/aa/one", tmp_path / "copy")
    assert time.now_s == pytest.approx(107.0)


def test_what_was_there_already_costs_nothing(tmp_path: Path) -> None:
    time = Time()
    store = PacedStore(DirectoryStore(tmp_path / "store"), Pace(1000, clock=time.clock, sleep=time.sleep))
    store.put("objects/aa/one", b"x" * 1000)
    store.put("objects/aa/one", b"x" * 1000)
    assert time.now_s == pytest.approx(101.0)


def test_every_method_is_forwarded_on_purpose() -> None:
    promised = {name for name in vars(Store) if not name.startswith("_")}
    assert promised <= set(vars(StoreWrapper))


def test_a_pack_reports_while_it_has_its_time(tmp_path: Path) -> None:
    time = Time()
    store = PacedStore(DirectoryStore(tmp_path / "store"), Pace(1 << 20, clock=time.clock, sleep=time.sleep))
    reported: list[float] = []
    store.put("packs/aa/one.zip", [bytes(2 << 20)], on_bytes=lambda _: reported.append(time.now_s))
    assert reported[0] < 100.5
    assert reported[-1] == pytest.approx(102.0)
