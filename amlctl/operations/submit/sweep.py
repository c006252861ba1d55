"""`submit --sweep`: one run for every combination of values, of one preparation of data, code and environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from amlctl.core.events import Note
from amlctl.core.message import count
from amlctl.core.run import RunRecord
from amlctl.core.run_id import child_id
from amlctl.core.run_state import RunState
from amlctl.core.sweep import Sweep
from amlctl.operations.context import Context
from amlctl.operations.submit.check import with_config_of
from amlctl.operations.submit.needed import Equals
from amlctl.operations.submit.start import PreparedRun, start


def start_sweep(
    context: Context, prepared: PreparedRun, sweep: Sweep, clock: Callable[[], datetime], *, is_needed_only: bool
) -> str:
    """Start the runs that are not there already; returns the parent's id. Raises as `start` does."""
    base = prepared.record
    folder = base.outputs.rpartition("/")[0]
    children, new = list[dict[str, str]](), list[RunRecord]()
    equals = Equals(context) if is_needed_only else None
    for number, (combination, config) in enumerate(zip(sweep.combinations, prepared.configs, strict=True)):
        spec = replace(with_config_of(base.spec, config), parent=base.run, combination=combination.values)
        found = None if equals is None else equals.find(spec)
        if found is None:
            run = child_id(base.run, number)
            new.append(replace(base, run=run, spec=spec, outputs=f"{folder}/{run}", phases=[], times=dict(base.times)))
        else:
            run = found.run
        status = RunState.NOT_STARTED if found is None else RunState.COMPLETED
        children.append({"run": run, "name": combination.label, "status": status.value})
    if reused := len(children) - len(new):
        context.sink(Note(f"{count(reused, 'run')} of {len(children)} Completed before; not running them again"))
    wanted = {"parallel": sweep.parallel, "metric": sweep.metric, "runs": len(children)}
    spec = replace(base.spec, job_type="sweep", sweep=wanted)
    start(context, replace(prepared, record=replace(base, spec=spec, children=children, outputs=folder)), clock, new)
    return base.run
