"""Metrics of runs, for the commands that show them: last values, and series where they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

from amlctl.core.events import Warned
from amlctl.core.metrics import Metrics, Point
from amlctl.core.run import RunRecord
from amlctl.errors import AmlctlError
from amlctl.operations.context import Context
from amlctl.runs.metrics import read_metrics
from amlctl.workspaces.contract import TracksMetrics


def metrics_of(context: Context, record: RunRecord, *, is_needed: bool = False) -> Metrics:
    """Last values, and the series that the outputs have; of an active run those saved so far.

    What cannot be read is a warning to the context's sink; where nothing can be read that `is_needed`, it is raised.
    """
    found = Metrics()
    try:
        found.add(read_metrics(context.store, record.run))
        if not record.metrics and isinstance(context.workspace, TracksMetrics):
            found.add(Metrics(last=dict(context.workspace.tracked.values(record.run))))
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
    if missing and isinstance(context.workspace, TracksMetrics):
        tracked = context.workspace.tracked.series(record.run, missing)
        found.update({name: list(points) for name, points in tracked.items() if points})
    return found
