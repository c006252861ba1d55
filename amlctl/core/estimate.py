"""Rate and time left of a stage, from how far it was at some moments.

A link costs time per byte and, however small a value is, time per value. What a byte costs is measured; what a value
costs is the guess that explains the time passed so far best: a folder of a few large and many small files does not move
at one rate.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Optional

_SHORTEST_S = 0.2
"""Time between two moments that are kept."""
_MOST_MOMENTS = 600
_WARM_UP_S = 1.5
"""Until then buffers fill and connections are opened; left out once there is more to go by."""
_RATE_WINDOW_S = 5.0
_SPANS = 8
_SHORTEST_SPAN_S = 1.0
"""In a shorter one, it matters too much which file happens to end in it."""
_USUAL_COST_S = 0.0005
"""Of a value: some 50 ms for a request, of which some 50 are under way at a time and half wait while others travel."""
_COSTS_S = (0.0, *(_USUAL_COST_S * 2**power for power in range(-3, 8)))
_FASTER = 1.25
"""How much faster the line may be than the fastest span: bytes take time also where values explain all of it."""
_DOUBT = 0.05
"""How much better than the usual cost another has to explain the time, for each doubling."""


class Moment(NamedTuple):
    """How far a stage is: bytes, and values (files and packs, each of which takes requests of its own)."""

    at_s: float
    size_bytes: int
    values: int


class Estimate:
    """Of one stage. `at_s` is from any clock that does not go back."""

    def __init__(self, at_s: float) -> None:
        self._moments: deque[Moment] = deque([Moment(at_s, 0, 0)], maxlen=_MOST_MOMENTS)

    def note(self, at_s: float, size_bytes: int, values: int) -> None:
        """How far it is now; less than before where something is done again."""
        if at_s - self._moments[-1].at_s >= _SHORTEST_S:
            self._moments.append(Moment(at_s, size_bytes, values))

    def rate(self, at_s: float) -> Optional[float]:
        """Bytes per second of the last seconds; None while unknown."""
        moments = [*self._moments]
        last = moments[-1]
        begin = moments[max(0, bisect_right([one.at_s for one in moments], at_s - _RATE_WINDOW_S) - 1)]
        passed_s = max(at_s, last.at_s) - begin.at_s
        if passed_s < _SHORTEST_S:
            return None
        return max(0, last.size_bytes - begin.size_bytes) / passed_s

    def left_s(self, at_s: float, total_bytes: int, total_values: int) -> Optional[float]:
        """Seconds until all has moved; None while unknown."""
        last, spans = self._moments[-1], self._spans()
        value_s = min(_COSTS_S, key=lambda cost_s: _doubt(spans, cost_s), default=0.0)
        byte_s = _byte_cost(spans, value_s)
        if byte_s is None:
            return None
        left_bytes, left_values = max(0, total_bytes - last.size_bytes), max(0, total_values - last.values)
        return max(0.0, left_bytes * byte_s + left_values * value_s - (at_s - last.at_s))

    def _spans(self) -> list[Moment]:
        """What happened in each of some equal spans of time."""
        moments = [*self._moments]
        if moments[-1].at_s - moments[0].at_s > 4 * _WARM_UP_S:
            warm = bisect_left([one.at_s for one in moments], moments[0].at_s + _WARM_UP_S)
            moments = moments[min(warm, len(moments) - 2) :]
        span_s = max(_SHORTEST_SPAN_S, (moments[-1].at_s - moments[0].at_s) / _SPANS)
        borders = [moments[-1]]
        for moment in reversed(moments):
            if borders[-1].at_s - moment.at_s >= span_s:
                borders.append(moment)
        if len(borders) == 1:
            borders.append(moments[0])
        borders[-1] = moments[0]  # what is too short for a span belongs to the first one
        return [
            Moment(late.at_s - early.at_s, late.size_bytes - early.size_bytes, late.values - early.values)
            for late, early in zip(borders, borders[1:])
        ]


def _byte_cost(spans: Sequence[Moment], value_s: float) -> Optional[float]:
    """Seconds per byte if a value costs so much; None before a byte has moved."""
    size_bytes = sum(span.size_bytes for span in spans)
    if size_bytes <= 0:
        return None
    left_s = sum(span.at_s - value_s * span.values for span in spans)
    fastest = max(span.size_bytes / span.at_s for span in spans)
    return max(left_s / size_bytes, 1 / (_FASTER * fastest))


def _doubt(spans: Sequence[Moment], value_s: float) -> float:
    """How badly that cost explains the time of the spans, and how unusual it is."""
    byte_s = _byte_cost(spans, value_s) or 0.0
    passed_s = sum(span.at_s for span in spans)
    wrong_s = sum(abs(span.at_s - span.values * value_s - span.size_bytes * byte_s) for span in spans)
    doublings = abs(math.log2(value_s / _USUAL_COST_S)) if value_s else 6.0
    return wrong_s / passed_s + _DOUBT * doublings if passed_s else doublings
