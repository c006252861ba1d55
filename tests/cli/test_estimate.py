"""Time left: right where it can be known, silent where it can't."""

from __future__ import annotations

import pytest

from amlctl.cli.render.estimate import Estimator


def feed(estimator: Estimator, work: list[tuple[float, int]], now_s: float = 0.0) -> tuple[float, int, int]:
    """One (seconds, bytes) after the other; the clock, files and bytes at the end."""
    files = size = 0
    for seconds, size_bytes in work:
        now_s += seconds
        files += 1
        size += size_bytes
        estimator.add(now_s, files, size)
    return now_s, files, size


def cost_s(size_bytes: int) -> float:
    return 0.001 + 1e-8 * size_bytes


def test_small_files_now_and_large_ones_to_come() -> None:
    """By bytes alone the estimate would be four times too long."""
    small = [2000 + 37 * i % 38000 for i in range(5000)]
    large = [50_000_000] * 40
    estimator = Estimator()
    now_s, _, _ = feed(estimator, [(cost_s(one), one) for one in small])
    left = estimator.remaining_s(now_s, len(large), sum(large))
    assert left == pytest.approx(sum(map(cost_s, large)), rel=0.05)
    rate = estimator.rate(now_s)
    assert rate is not None
    assert sum(large) / rate > 3 * left


def test_equal_files_are_told_by_either() -> None:
    estimator = Estimator()
    now_s, _, _ = feed(estimator, [(0.5, 1000)] * 20)
    assert estimator.remaining_s(now_s, 10, 10_000) == pytest.approx(5.0)


def test_empty_files_take_time_too() -> None:
    estimator = Estimator()
    now_s, _, _ = feed(estimator, [(0.5, 0)] * 20)
    assert estimator.remaining_s(now_s, 10, 0) == pytest.approx(5.0)


def test_one_large_file() -> None:
    estimator = Estimator()
    for second in range(1, 6):
        estimator.add(float(second), 0, second * 1_000_000)
    assert estimator.remaining_s(5.0, 1, 10_000_000) == pytest.approx(10.0)
    assert estimator.rate(5.0) == pytest.approx(1_000_000)


def test_nothing_is_said_too_early() -> None:
    estimator = Estimator()
    assert estimator.rate(0.0) is None
    assert estimator.remaining_s(0.0, 1, 1) is None
    now_s, _, _ = feed(estimator, [(0.3, 1000)] * 4)
    assert estimator.remaining_s(now_s, 100, 100_000) is None


def test_standing_still_has_no_time_left() -> None:
    estimator = Estimator()
    now_s, _, _ = feed(estimator, [(0.5, 1000)] * 20)
    assert estimator.remaining_s(now_s + 6, 10, 10_000) is None
    assert estimator.rate(now_s + 6) == 0.0


def test_time_passes_between_events() -> None:
    estimator = Estimator()
    now_s, _, _ = feed(estimator, [(0.5, 1000)] * 20)
    assert estimator.remaining_s(now_s + 2, 10, 10_000) == pytest.approx(3.0)


def test_a_retry_begins_anew() -> None:
    estimator = Estimator()
    now_s, files, size = feed(estimator, [(0.5, 1000)] * 20)
    estimator.add(now_s + 1, files, size - 5000)
    assert estimator.rate(now_s + 1) is None


def test_only_the_last_seconds_count() -> None:
    estimator = Estimator()
    now_s, files, size = feed(estimator, [(0.5, 1_000_000)] * 60)
    for _ in range(60):
        now_s, files, size = now_s + 0.5, files + 1, size + 1000
        estimator.add(now_s, files, size)
    assert estimator.rate(now_s) == pytest.approx(2000, rel=0.01)
