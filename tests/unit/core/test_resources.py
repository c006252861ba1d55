"""A bounded series that loses neither a peak nor an average, however long the run is."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amlctl.core.resources import MOST_SAMPLES, Resources, Sample


@given(st.lists(st.tuples(st.floats(0.1, 9), st.floats(0, 8), st.integers(0, 1 << 40)), min_size=1, max_size=1000))
def test_peaks_and_averages_stay(looks: list[tuple[float, float, int]]) -> None:
    resources, at_s, used_s = Resources(), 0.0, 0.0
    for pause_s, processors, memory in looks:
        at_s += pause_s
        used_s += pause_s * processors
        resources.add(Sample(at_s, processors, memory))
        assert len(resources.samples) <= MOST_SAMPLES
    summary = resources.summary()
    assert summary.keys() == {"processors", "peak_memory_bytes"}
    assert summary["peak_memory_bytes"] == max(memory for *_, memory in looks)
    assert summary["processors"] == pytest.approx(used_s / at_s)
    assert resources.samples[-1].at_s == at_s


def test_samples_of_a_long_run_stand_for_equal_times() -> None:
    resources = Resources()
    for number in range(20_000):
        resources.add(Sample(float(number + 1), 1.0, None, 0.5, 10))
    ends = [0.0, *(sample.at_s for sample in resources.samples)]
    widths = [after - before for before, after in pairwise(ends)]
    assert MOST_SAMPLES / 2 <= len(widths) <= MOST_SAMPLES
    assert max(widths[:-1]) <= 2 * min(widths[:-1])
    assert resources.summary() == {"processors": 1.0, "gpu": 0.5, "peak_gpu_memory_bytes": 10}


def test_a_document_comes_back_whole() -> None:
    resources = Resources()
    resources.add(Sample(0.5, None, 100))
    resources.add(Sample(1.0, 2.5, 50, 0.9, 1 << 33))
    document = json.loads(json.dumps(resources.to_json()))
    assert document["samples"][0] == {"at_s": 0.5, "memory_bytes": 100}
    assert Resources.from_json(document).samples == resources.samples


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"format": 2, "samples": [{"at_s": 1}]},
        {"format": 1, "samples": {}},
        {"format": 1, "samples": [7]},
        {"format": 1, "samples": [{"processors": 1.0}]},
        {"format": 1, "samples": [{"at_s": 2}, {"at_s": 1}]},
        {"format": 1, "samples": [{"at_s": 1, "processors": float("nan")}]},
        {"format": 1, "samples": [{"at_s": 1, "memory_bytes": "</script>"}]},
        {"format": 1, "samples": [{"at_s": True}]},
    ],
)
def test_nothing_is_taken_from_another_document(document: Any) -> None:
    assert Resources.from_json(document).samples == []
    assert Resources.from_json(document).summary() == {}
