"""Time left, against a simulated link: bandwidth is shared, every request waits for its answer, and a few are made at a
time. After the first fifth the predicted end is never further off than a fifth."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytest

from amlctl.core.estimate import Estimate
from amlctl.snapshots.transfers import taking_turns

MB = 1_000_000
_PIECE = 256 << 10
_STEP_S = 0.04
_LATENCY_S = 0.06


class Request(NamedTuple):
    size_bytes: int
    ends_value: bool = True


class Lane(NamedTuple):
    """Requests in their order, and how many are made at a time."""

    requests: Sequence[Request]
    at_a_time: int


class Seen(NamedTuple):
    at_s: float
    size_bytes: int
    values: int


def _packs(count: int) -> list[Request]:
    """Four blocks each."""
    return [Request(16 * MB, number % 4 == 3) for number in range(4 * count)]


def _file(size_bytes: int) -> list[Request]:
    blocks = [Request(4 * MB, False)] * (size_bytes // (4 * MB))
    return [*blocks, Request(size_bytes % (4 * MB) or 1)]


def _files(sizes: Sequence[int]) -> list[Request]:
    return [request for size_bytes in taking_turns(sizes, int) for request in _file(size_bytes)]


LARGE, SMALL = [40 * MB] * 6, [10_000] * 6000
CASES = {
    "packs": ([Lane(_packs(6), 3)], 3 * MB),
    "a few large files": ([Lane(_files(LARGE), 6)], 10 * MB),
    "small files, each waits longer than it travels": ([Lane(_files(SMALL), 48)], 20 * MB),
    "small files on a slow line": ([Lane(_files(SMALL[:2000]), 48)], 1 * MB),
    "packs beside large files": ([Lane(_packs(5), 3), Lane(_files(LARGE), 6)], 5 * MB),
    "a large pack on a very slow line": ([Lane(_packs(1), 3), Lane(_files([20 * MB]), 6)], 1 * MB),
    "few large and many small files": ([Lane(_files([*LARGE, *SMALL]), 48)], 10 * MB),
    "files of all sizes": ([Lane(_files([int(10_000 * 1.004**n) for n in range(1800)]), 48)], 5 * MB),
    "a few files of some blocks and many small ones": ([Lane(_files([8 * MB] * 4 + [10_000] * 1500), 48)], 3 * MB),
    "some blocks and tiny files": ([Lane(_files([8 * MB] * 4 + [1000] * 3000), 48)], 3 * MB),
    "four sizes": ([Lane(_files([40 * MB] * 2 + [2 * MB] * 40 + [100_000] * 300 + [1000] * 3000), 48)], 6 * MB),
    "stretches of packs beside files": ([Lane([Request(8 * MB)] * 30, 8), Lane(_files(LARGE), 16)], 4 * MB),
}


def _simulated(lanes: Sequence[Lane], bytes_per_s: float, jitter: float) -> Iterator[Seen]:
    chance = random.Random(1)
    waiting = [list(reversed(lane.requests)) for lane in lanes]
    under_way: list[tuple[int, Request, list[float]]] = []  # lane, request, [latency left, bytes moved]
    at_s, done_bytes, values, rate = 0.0, 0, 0, bytes_per_s
    while True:
        for number, lane in enumerate(lanes):
            free = lane.at_a_time - sum(one[0] == number for one in under_way)
            for _ in range(min(free, len(waiting[number]))):
                under_way.append((number, waiting[number].pop(), [_LATENCY_S, 0.0]))
        if not under_way:
            return
        if int(at_s) != int(at_s - _STEP_S):
            rate = bytes_per_s * chance.uniform(1 - jitter, 1 + jitter)
        at_s += _STEP_S
        moving = [one for one in under_way if one[2][0] <= 0]
        budget = rate * _STEP_S
        moving.sort(key=lambda one: one[1].size_bytes - one[2][1])
        for number, one in enumerate(moving):
            moved = min(budget / (len(moving) - number), one[1].size_bytes - one[2][1])
            one[2][1] += moved
            budget -= moved
        for one in under_way:
            one[2][0] -= _STEP_S
        ended = [one for one in moving if one[2][1] >= one[1].size_bytes - 1e-6]
        under_way = [one for one in under_way if one not in ended]
        done_bytes += sum(one[1].size_bytes for one in ended)
        values += sum(one[1].ends_value for one in ended)
        yield Seen(at_s, done_bytes + sum(int(one[2][1] // _PIECE) * _PIECE for one in under_way), values)


def _worst(seen: Sequence[Seen], lanes: Sequence[Lane]) -> float:
    """Largest error of the predicted end after the first fifth, in parts of the whole time."""
    requests = [request for lane in lanes for request in lane.requests]
    totals = sum(request.size_bytes for request in requests), sum(request.ends_value for request in requests)
    estimate, end_s, worst = Estimate(0.0), seen[-1].at_s, 0.0
    for number, (at_s, size_bytes, values) in enumerate(seen):
        estimate.note(at_s, size_bytes, values)
        if at_s >= end_s / 5 and number % 5 == 0:
            left_s = estimate.left_s(at_s, *totals)
            assert left_s is not None
            worst = max(worst, abs(at_s + left_s - end_s) / end_s)
    return worst


@pytest.mark.parametrize("jitter", [0.0, 0.4], ids=["steady", "unsteady"])
@pytest.mark.parametrize("case", CASES)
def test_the_end_is_known_after_a_fifth(case: str, jitter: float) -> None:
    lanes, bytes_per_s = CASES[case]
    assert _worst([*_simulated(lanes, bytes_per_s, jitter)], lanes) < 0.2


def test_no_estimate_before_something_has_moved() -> None:
    estimate = Estimate(0.0)
    assert estimate.left_s(1.0, MB, 1) is None
    assert estimate.rate(0.1) is None
    estimate.note(5.0, 0, 0)
    assert estimate.left_s(5.0, MB, 1) is None
    assert estimate.rate(5.0) == 0


def test_the_rate_is_that_of_the_last_seconds() -> None:
    estimate = Estimate(0.0)
    for tenth in range(200):
        estimate.note(tenth / 10, tenth * MB, 0)
    assert estimate.rate(19.9) == pytest.approx(10 * MB, rel=0.1)
    for tenth in range(200, 260):
        estimate.note(tenth / 10, 199 * MB, 0)
    assert estimate.rate(25.9) == 0


def test_what_is_sent_again_takes_time_again() -> None:
    estimate = Estimate(0.0)
    for second in range(11):
        estimate.note(float(second), second * MB, 0)
    before = estimate.left_s(10.0, 20 * MB, 0)
    estimate.note(10.5, 6 * MB, 0)
    after = estimate.left_s(10.5, 20 * MB, 0)
    assert before == pytest.approx(10.0, rel=0.05)
    assert after is not None
    assert after > 13.0
