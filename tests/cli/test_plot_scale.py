"""Ticks of axes are round, few, and inside; any finite values have a scale."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amlctl.cli.render.plot import Scale, tick_text

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0, 1], ["0", "0.5", "1"]),
        ([0, 59], ["0", "20", "40"]),
        ([-1, 1], ["-1", "0", "1"]),
        ([5, 5], ["4", "6"]),
        ([1e-9, 3e-9], ["1e-09", "2e-09", "3e-09"]),
        ([], ["0", "0.5", "1"]),
    ],
)
def test_ticks_are_round(values: list[float], ticks: list[str]) -> None:
    assert [tick_text(tick) for tick in Scale.over(values, wanted=3).ticks] == ticks


@given(st.lists(FINITE, max_size=5), st.integers(2, 20))
@example([1e308, -1e308], 5)
@example([-2e300], 2)
@example([0.0, 5e-324], 5)
def test_any_values_have_a_scale(values: list[float], wanted: int) -> None:
    scale = Scale.over(values, wanted=wanted, margin=0.03)
    assert scale.low < scale.high
    assert len(scale.ticks) <= wanted + 2
    assert all(0 <= scale.part(value) <= 1 for value in values)
    assert all(map(math.isfinite, [*scale.ticks, scale.low, scale.high]))
    assert all(scale.low <= tick + (scale.high - scale.low) * 1e-6 for tick in scale.ticks)
