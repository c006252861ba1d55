"""Metrics of runs, for the commands that show them: last values, series where they are asked for, and the curves of
`runs plot`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from amlctl.core.events import Warned
from amlctl.core.message import did_you_mean
from amlctl.core.metrics import Metrics, Point, as_json
from amlctl.core.run import RunRecord
from amlctl.errors import AmlctlError, NotFound
from amlctl.operations.context import Context
from amlctl.operations.runs import RunAt
from amlctl.runs.metrics import read_metrics


def metrics_of(context: Context, record: RunRecord, *, is_needed: bool = False) -> Metrics:
    """Last values, and the series that the outputs have; of an active run those saved so far.

    What cannot be read is a warning to the context's sink; where nothing can be read that `is_needed`, it is raised.
    """
    found = Metrics()
    try:
        found.add(read_metrics(context.store, record.run))
        if not record.metrics and context.workspace.service is not None:
            found.add(Metrics(last=dict(context.workspace.service.tracked.values(record.run))))
    except AmlctlError as error:
        if is_needed and not record.metrics:
            raise
        found.warnings.append(f"some of its metrics are not shown: {error.message}")
    found.add(Metrics.of_record(record.metrics))
    for warning in found.warnings:
        context.sink(Warned(f"run {record.run}: {warning}"))
    return found


def series_of(context: Context, record: RunRecord, metrics: Metrics, names: Sequence[str]) -> dict[str, list[Point]]:
    """Of these metrics, those with more than a last value. Raises RightsError, ServiceUnavailable."""
    found = {name: metrics.series[name] for name in names if name in metrics.series}
    missing = [name for name in names if name not in found and name in metrics.last]
    if missing and context.workspace.service is not None:
        tracked = context.workspace.service.tracked.series(record.run, missing)
        found.update({name: list(points) for name, points in tracked.items() if points})
    return found


_NAMED = 10


@dataclass(frozen=True)
class Plotted:
    """A metric with the points of each run; `missing` are runs that have at most a last value of it."""

    metric: str
    curves: dict[str, list[Point]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric,
            "runs": [
                {"run": run, "points": [[point.step, as_json(point.value)] for point in points]}
                for run, points in self.curves.items()
            ],
            "missing": list(self.missing),
        }


def plot(runs: Sequence[RunAt], metrics: Sequence[str], default: str | None) -> list[Plotted]:
    """One result for each metric; without any, `default`, or the first one of the first run that has a series.

    Works for active runs, too. Raises NotFound if no run has a series of a metric.
    """
    unique = {one.run: one for one in runs}
    records = {run: one.context.workspace.read(run) for run, one in unique.items()}
    found = {run: metrics_of(one.context, records[run], is_needed=True) for run, one in unique.items()}
    names = list(dict.fromkeys(metrics)) or [_default(list(found.values()), default)]
    plotted = [Plotted(name) for name in names]
    for run, one in unique.items():
        series = series_of(one.context, records[run], found[run], names)
        for result in plotted:
            if result.metric in series:
                result.curves[run] = series[result.metric]
            else:
                result.missing.append(run)
    for result in plotted:
        if not result.curves:
            raise _unknown(result.metric, list(found.values()))
    return plotted


_HOW = (
    'a script appends a line such as {"step": 1, "loss": 0.5} for each step to metrics.jsonl in outputs_dir(), '
    "or logs with MLflow"
)


def _default(found: Sequence[Metrics], default: str | None) -> str:
    known = {name for one in found for name in one.last}
    if default in known:
        return str(default)
    name = next((name for one in found for name in (*one.series, *one.last)), None)
    if name is None:
        raise NotFound("the runs have no metrics", hint=_HOW)
    return name


def _unknown(name: str, found: Sequence[Metrics]) -> NotFound:
    series = dict.fromkeys(name for one in found for name in one.series)
    has_last = any(name in one.last for one in found)
    what = f"the runs have only a last value of {name!r}" if has_last else f"the runs have no metric {name!r}"
    if not series:
        return NotFound(what, hint=_HOW)
    near = "" if has_last else did_you_mean(name, series)
    return NotFound(what, hint=near or f"series: {', '.join(list(series)[:_NAMED])}")
