"""What the processes of a run used while its script ran: a bounded series, and its summary in a record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from amlctl.core.run_schema import is_amount

FORMAT = 1
MOST_SAMPLES = 120


class Sample(NamedTuple):
    """From the sample before it, or the start of the script, until `at_s` after that start: processors (1.0 is one of
    them) and parts of 1 of the GPUs on average, and the most memory. None where that is not known."""

    at_s: float
    processors: Optional[float] = None
    memory_bytes: Optional[int] = None
    gpu: Optional[float] = None
    gpu_memory_bytes: Optional[int] = None


class Resources:
    """Samples in order of time; of a long run each one stands for a longer time."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._least_s = 0.0
        """Time that each sample but the last one stands for, at least."""

    def add(self, sample: Sample) -> None:
        if len(self.samples) > 1 and self.samples[-1].at_s - self.samples[-2].at_s < self._least_s:
            sample = _joined(self.samples[-2].at_s, self.samples.pop(), sample)
        elif len(self.samples) == 1 and self.samples[0].at_s < self._least_s:
            sample = _joined(0.0, self.samples.pop(), sample)
        self.samples.append(sample)
        if len(self.samples) > MOST_SAMPLES:
            self._least_s = 2 * sample.at_s / MOST_SAMPLES
            fine, self.samples = self.samples, []
            for one in fine:
                self.add(one)

    def summary(self) -> dict[str, float]:
        """As a record has it: averages of the whole time, and the most memory; empty where nothing is known."""
        if not self.samples:
            return {}
        whole = self.samples[0]
        for before, sample in zip(self.samples, self.samples[1:]):
            whole = _joined(0.0, whole._replace(at_s=before.at_s), sample)
        found = {
            "processors": whole.processors,
            "peak_memory_bytes": whole.memory_bytes,
            "gpu": whole.gpu,
            "peak_gpu_memory_bytes": whole.gpu_memory_bytes,
        }
        return {name: value for name, value in found.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        samples = [{name: value for name, value in one._asdict().items() if value is not None} for one in self.samples]
        return {"format": FORMAT, "samples": samples}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Resources:
        """Empty for a document that is not one, or has a newer format."""
        found = cls()
        samples = document.get("samples")
        if document.get("format") != FORMAT or not isinstance(samples, list):
            return found
        at_s = 0.0
        for one in samples:
            values = {name: one[name] for name in Sample._fields if name in one} if isinstance(one, dict) else {}
            if not all(map(is_amount, values.values())) or values.get("at_s", -1) < at_s:
                return cls()
            at_s = values["at_s"]
            found.add(Sample(**values))
        return found


def _joined(since_s: float, first: Sample, second: Sample) -> Sample:
    """Of the time from `since_s` until the end of `second`."""
    widths = first.at_s - since_s, second.at_s - first.at_s
    return Sample(
        second.at_s,
        _average(widths, first.processors, second.processors),
        _most(first.memory_bytes, second.memory_bytes),
        _average(widths, first.gpu, second.gpu),
        _most(first.gpu_memory_bytes, second.gpu_memory_bytes),
    )


def _average(widths: tuple[float, float], first: Optional[float], second: Optional[float]) -> Optional[float]:
    if first is None or second is None:
        return second if first is None else first
    both = sum(widths)
    return (first * widths[0] + second * widths[1]) / both if both else second


def _most(first: Optional[int], second: Optional[int]) -> Optional[int]:
    known = [value for value in (first, second) if value is not None]
    return max(known) if known else None
