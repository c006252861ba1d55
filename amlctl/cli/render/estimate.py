"""Rate and time left of a stage, from what the last seconds have shown.

Small files cost time by their number, large ones by their bytes, so the time of a piece of work is taken as
`a · files + b · bytes`, both at least 0, fitted to recent samples by least squares. Nothing is said before
there is something to go by, nor while the work stands still.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import pairwise

WINDOW_S = 10.0
"""Samples older than this no longer count for the rate."""

SAMPLE_S = 0.25
"""Samples come at most this often."""

MIN_SPAN_S = 2.0
"""No time left is given from a shorter experience than this."""

STALLED_S = 5.0
"""After so long without progress the rate is 0 and there is no time left."""


@dataclass(frozen=True)
class _Sample:
    at_s: float
    files: int
    bytes: int


class Estimator:
    """One stage's speed. Times are seconds of any one steady clock; counts are absolute. Not thread-safe."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque()
        self._moved_at_s: float | None = None

    def add(self, now_s: float, files: int, size_bytes: int) -> None:
        """Take in how far the stage is."""
        samples = self._samples
        last = samples[-1] if samples else None
        if last is None or (files, size_bytes) != (last.files, last.bytes):
            self._moved_at_s = now_s
        if last is not None and (files < last.files or size_bytes < last.bytes):
            samples.clear()  # a retry started again: what was measured before no longer adds up
        elif last is not None and now_s - last.at_s < SAMPLE_S:
            return
        samples.append(_Sample(now_s, files, size_bytes))
        while len(samples) > 2 and now_s - samples[0].at_s > WINDOW_S:
            samples.popleft()

    def _is_stalled(self, now_s: float) -> bool:
        return self._moved_at_s is None or now_s - self._moved_at_s > STALLED_S

    def rate(self, now_s: float) -> float | None:
        """Bytes per second over the last seconds; None while unknown."""
        if len(self._samples) < 2:
            return None
        if self._is_stalled(now_s):
            return 0.0
        first, last = self._samples[0], self._samples[-1]
        span_s = max(now_s, last.at_s) - first.at_s
        return (last.bytes - first.bytes) / span_s if span_s > 0 else None

    def remaining_s(self, now_s: float, left_files: int, left_bytes: int) -> float | None:
        """Seconds that the rest should take; None where nothing honest can be said."""
        if len(self._samples) < 3 or self._is_stalled(now_s):
            return None
        if self._samples[-1].at_s - self._samples[0].at_s < MIN_SPAN_S:
            return None
        cost = self._costs()
        if cost is None:
            return None
        seconds = cost[0] * left_files + cost[1] * left_bytes
        return max(0.0, seconds - (now_s - self._samples[-1].at_s)) if seconds > 0 else None

    def _costs(self) -> tuple[float, float] | None:
        """Seconds per file and per byte: least squares under `a, b >= 0`, scaled to the time really taken."""
        samples = list(self._samples)
        ff = fb = bb = ft = bt = 0.0
        for one, two in pairwise(samples):
            files, size = two.files - one.files, two.bytes - one.bytes
            took = two.at_s - one.at_s
            ff, fb, bb = ff + files * files, fb + files * size, bb + size * size
            ft, bt = ft + files * took, bt + size * took
        determinant = ff * bb - fb * fb
        if determinant > 1e-6 * ff * bb:
            a = (ft * bb - bt * fb) / determinant
            b = (bt * ff - ft * fb) / determinant
        else:  # files and bytes grew in step: half of the time is put down to each
            a, b = ft / ff / 2 if ff else 0.0, bt / bb / 2 if bb else 0.0
        if a < 0:
            a, b = 0.0, bt / bb
        elif b < 0:
            a, b = ft / ff, 0.0
        first, last = samples[0], samples[-1]
        explained_s = a * (last.files - first.files) + b * (last.bytes - first.bytes)
        if explained_s <= 0:
            return None
        scale = (last.at_s - first.at_s) / explained_s
        return a * scale, b * scale
