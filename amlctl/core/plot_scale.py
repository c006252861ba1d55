"""The scale of an axis: from a value to its position, and ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

_LARGEST, _SMALLEST = 1e300, 1e-300
"""Of what is shown: beyond them a range is infinite, or a step is zero."""


class Scale(NamedTuple):
    low: float
    high: float
    ticks: Sequence[float]

    @classmethod
    def over(cls, values: Sequence[float], *, wanted: int, margin: float = 0.0) -> Scale:
        """Over finite values, with about `wanted` ticks; `margin` is the part of the range added at each end."""
        ends = min(values, default=0.0), max(values, default=1.0)
        low, high = (min(_LARGEST, max(-_LARGEST, end)) for end in ends)
        if high - low <= max(_SMALLEST, 1e-12 * max(abs(low), abs(high))):
            pad = abs(low) / 2 if abs(low) > _SMALLEST else 1.0
            low, high = low - pad, high + pad
        low, high = low - (high - low) * margin, high + (high - low) * margin
        step = _round_step((high - low) / wanted)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return cls(low, high, [number * step for number in range(first, last + 1)])

    def part(self, value: float) -> float:
        """From 0 at the low end to 1 at the high one."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


def _round_step(least: float) -> float:
    """The next of 1, 2, 5, 10 … times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def tick_text(value: float) -> str:
    return f"{value:.4g}" if abs(value) > 1e-12 else "0"
