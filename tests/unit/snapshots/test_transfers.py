"""What transfers report adds up, also where a request is made again; nothing counts twice and nothing early."""

from __future__ import annotations

from amlctl.core.events import Event, Stage, StageProgress
from amlctl.snapshots.transfers import Transfers, taking_turns


def _shown(events: list[Event]) -> list[tuple[int, int]]:
    return [(event.done_files, event.done_bytes) for event in events if isinstance(event, StageProgress)]


def test_files_of_a_pack_count_as_the_pack_moves() -> None:
    events: list[Event] = []
    transfers = Transfers(Stage.SEND, "d", events.append)
    transfers.expect(10, 2000, 1)
    assert events == []  # a stage that moves nothing is not shown
    pack = transfers.transfer(10, 2000, 1000)  # deflated to half
    for _ in range(4):
        pack.moved(250)
    pack.done()
    transfers.finish()
    assert _shown(events) == [(2, 500), (5, 1000), (7, 1500), (9, 2000), (10, 2000), (10, 2000)]
    last = events[-1]
    assert isinstance(last, StageProgress)
    assert last.is_done


def test_a_request_that_is_made_again_takes_back() -> None:
    events: list[Event] = []
    transfers = Transfers(Stage.RECEIVE, "d", events.append)
    file = transfers.transfer(1, 100, 100)
    for moved in (60, -60, 60, 40):
        file.moved(moved)
    file.done()
    assert _shown(events) == [(0, 60), (0, 0), (0, 60), (0, 100), (1, 100)]


def test_what_was_there_before_counts_when_that_is_known() -> None:
    events: list[Event] = []
    transfers = Transfers(Stage.SEND, "d", events.append)
    transfers.transfer(1, 100, 100).done()
    transfers.transfer(1, 0, 0).done()
    assert _shown(events) == [(1, 100), (2, 100)]


def test_values_are_counted_apart_from_files() -> None:
    events: list[Event] = []
    transfers = Transfers(Stage.SEND, "d", events.append)
    transfers.transfer(7, 70, 70).done()
    transfers.expect(10, 100, 3)
    last = events[-1]
    assert isinstance(last, StageProgress)
    assert (last.done_values, last.total_values, last.total_files) == (1, 4, 10)


def test_large_and_small_ones_take_turns() -> None:
    sizes = [5, 6, 7, 8, 2 << 20, 3 << 20]
    assert taking_turns(sizes, lambda size: size) == [2 << 20, 5, 6, 3 << 20, 7, 8]
    assert taking_turns([1, 2, 3], lambda size: size) == [1, 2, 3]
