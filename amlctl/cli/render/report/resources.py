"""What runs used while their scripts ran, as plots over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from amlctl.cli.render.plot import Curve
from amlctl.cli.render.report.markup import Markup, joined, markup
from amlctl.cli.render.report.svg import plot
from amlctl.core.metrics import Point
from amlctl.core.resources import Resources, Sample
from amlctl.operations.report import RunPage

_TIMES = ((3600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
_SIZES = ((1e9, "GB"), (1e6, "MB"))
_PLOTS: Sequence[tuple[str, bool, Callable[[Sample], float | None]]] = (
    ("CPU in %", False, lambda sample: None if sample.processors is None else 100 * sample.processors),
    ("Memory", True, lambda sample: sample.memory_bytes),
    ("GPU in %", False, lambda sample: None if sample.gpu is None else 100 * sample.gpu),
    ("GPU memory", True, lambda sample: sample.gpu_memory_bytes),
)
"""Title, whether it has bytes, and the value."""


def resource_plots(runs: Sequence[RunPage]) -> Iterator[Markup]:
    """Nothing where nothing is recorded."""
    longest_s = max((run.resources.samples[-1].at_s for run in runs if run.resources.samples), default=0.0)
    unit_s, unit = next((one for one in _TIMES if longest_s >= 2 * one[0]), _TIMES[-1])
    figures = []
    for title, has_bytes, value_of in _PLOTS:
        values = [list(_values(run.resources, value_of)) for run in runs]
        most = max((value for each in values for _, value in each), default=0.0)
        if not most:
            continue
        scale, size_unit = next((one for one in _SIZES if most >= one[0]), _SIZES[-1]) if has_bytes else (1.0, "")
        curves = [
            Curve(run.record.run, [Point(at_s / unit_s, value / scale) for at_s, value in each])
            for run, each in zip(runs, values, strict=True)
        ]
        name = f"{title} in {size_unit}" if has_bytes else title
        figures.append(markup("<figure><figcaption>{}</figcaption>{}</figure>", name, plot(name, curves, over=unit)))
    if figures:
        yield markup('<h2>Resources over time, in {}</h2><section class="plots">{}</section>', unit, joined(figures))


def _values(resources: Resources, value_of: Callable[[Sample], float | None]) -> Iterator[tuple[float, float]]:
    for sample in resources.samples:
        value = value_of(sample)
        if value is not None:
            yield sample.at_s, value
