"""What `amlctl submit` says: what it would do, or how its run ended."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from amlctl.cli.commands.fetch import fetched_text
from amlctl.cli.commands.runs import named_values, variable_values
from amlctl.cli.commands.runs_list import took
from amlctl.cli.render.run_lines import phases_text
from amlctl.cli.render.sweeps import sweep_lines
from amlctl.cli.render.tables import Line, Table, dim, fields, highlight, linked, state_cell
from amlctl.core.message import ID_CELLS, Command, Message, count, size
from amlctl.core.run_state import RunState
from amlctl.core.sweep import label
from amlctl.operations.submit.result import SubmitPlan, SubmitResult


def result_lines(result: SubmitResult, root: Path, width: int, *, is_announced: bool = False) -> Iterator[Line | Table]:
    """How the run ended, where its outputs are, and what to type next. `root` is the project's folder; `is_announced`:
    the run's id stands above."""
    record = result.record
    run, state = highlight(record.run), state_cell(record.status)
    if not record.is_final:
        yield ["  ", state] if is_announced else ["run ", run, "  ", state]
        yield Message("  ", Command("logs", record.run, "-f"))
        return
    yield from sweep_lines(result.results)
    code = f" with exit code {record.exit_code}" if record.exit_code else ""
    if result.failure is None or record.status == RunState.COMPLETED:  # else the error says so
        yield ["run ", run, "  ", state, f"{code} in {took(record)}" if took(record) else code]
    for phases in phases_text(record, width - 2).splitlines():
        yield [dim(f"  {phases}")]
    for name, snapshot in record.published.items():
        yield f"  published {name}, snapshot {snapshot[:ID_CELLS]}"
    yield from (f"  registered as {asset}" for asset in result.registered)
    if result.fetched is not None:
        yield ["  ", *fetched_text(result.fetched, root)]
    elif record.outputs:
        yield Message("  outputs not downloaded: ", Command("fetch", record.run))
    if record.studio_url:
        yield ["  ", linked(record.studio_url, record.studio_url)]


def plan_lines(plan: SubmitPlan) -> Iterator[Line]:
    """What a submit would upload and run."""
    datasets = {
        name: f"{document.get('snapshot', '')[:ID_CELLS]}"
        + (f"  {size(document['uploaded_bytes'])} to upload" if document.get("uploaded_bytes") else "")
        for name, document in plan.datasets.items()
    }
    ready = "ready" if plan.environment.is_ready else "not prepared yet"
    yield from fields(
        [
            ("would show", f"run {plan.equal_run}, which did the same and Completed" if plan.equal_run else ""),
            ("command" if plan.equal_run else "would run", shlex.join(plan.command)),
            ("config", plan.spec.config or ""),
            ("datasets", named_values(datasets)),
            ("produces", "\n".join(plan.spec.produces)),
            ("code", f"{plan.spec.code[:ID_CELLS]}  {count(plan.code_files, 'file')}, {size(plan.code_bytes)}"),
            ("environment", f"{plan.environment.id[:ID_CELLS]}  {ready}"),
            ("workspace", plan.spec.workspace),
            ("compute", plan.spec.compute),
            ("distribution", plan.spec.process_group.text),
            ("mode", plan.spec.mode),
            ("experiment", plan.spec.experiment),
            ("variables", variable_values(plan.spec.variables)),
            ("sweep", "\n".join(map(label, plan.combinations))),
        ]
    )
