"""Texts about a run: how it stands, how it ended, what it would do, and all that is recorded; and of a sweep its
runs, as a table.

sync 2.1 s › env cached › data 9.0 s › run 12 min 3 s › save 0.4 s
CPU 340% · peak memory 1.2 GB · GPU 93% · peak GPU memory 10.1 GB
"""

from __future__ import annotations

import json
import os
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amlctl.cli.render.tables import (
    Cell,
    Column,
    Line,
    Styled,
    Table,
    bold,
    dim,
    duration,
    fields,
    good,
    highlight,
    linked,
    moment,
    state_cell,
)
from amlctl.core.message import ID_CELLS, Command, Message, below_data_blobs, count, size
from amlctl.core.metrics import Goal, as_json, shown
from amlctl.core.phases import CACHED, Phase, Span, script_s, timeline
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState, is_final
from amlctl.core.sweep import SweepRow, best_of, label

if TYPE_CHECKING:
    from amlctl.core.metrics import Metrics
    from amlctl.operations.fetch import FetchResult
    from amlctl.operations.runs import RunView
    from amlctl.operations.submit.result import SubmitPlan, SubmitResult
    from amlctl.operations.watch import SweepView

SEPARATOR = " › "
_LEAST_WIDTH = 20
_UNBROKEN = "\N{NO-BREAK SPACE}"


def phases_text(record: RunRecord, width: int) -> str:
    """In lines of at most `width` cells, broken between phases; empty for a run that has not begun."""
    phases = [phase_text(span).replace(" ", _UNBROKEN) for span in timeline(record, datetime.now(UTC))]
    return textwrap.fill(SEPARATOR.join(phases), max(width, _LEAST_WIDTH)).replace(_UNBROKEN, " ")


def phase_text(span: Span) -> str:
    """Without a time where there was nothing to do."""
    return f"{span.name} {CACHED if span.note == CACHED else duration(span.seconds)}"


def resources_text(record: RunRecord) -> str:
    """Empty for a run whose script has not ended, or never began."""
    found = record.resources
    parts = [
        f"CPU {found['processors']:.0%}" if "processors" in found else "",
        f"peak memory {size(int(found['peak_memory_bytes']))}" if found.get("peak_memory_bytes") else "",
        f"GPU {found['gpu']:.0%}" if "gpu" in found else "",
        f"peak GPU memory {size(int(found['peak_gpu_memory_bytes']))}" if "peak_gpu_memory_bytes" in found else "",
    ]
    text = " · ".join(part for part in parts if part)
    has_run = record.is_final and any(phase["name"] == Phase.RUN for phase in record.phases)
    return text or ("not recorded" if has_run else "")


_METRICS = 4
"""Columns of metrics; `runs compare` has all."""
_ORDER = (RunState.RUNNING, RunState.COMPLETED, RunState.FAILED, RunState.CANCELED)


def sweep_table(rows: Sequence[SweepRow], goal: Goal | None, shown_rows: Sequence[SweepRow] | None = None) -> Table:
    """Of `shown_rows` (default: all), with a mark for the best of all."""
    best = best_of(rows, goal)
    keys = list(dict.fromkeys(key for row in rows for key in row.values))
    metrics = list(dict.fromkeys([*([goal.name] if goal else []), *(name for row in rows for name in row.metrics)]))
    short = Counter(key.rpartition(".")[2] for key in keys)
    columns = [
        Column("RUN", is_whole=True),
        *(Column(last if short[last := key.rpartition(".")[2]] == 1 else key) for key in keys),
        Column("STATUS", is_whole=True, rank=1),
        Column("TOOK", is_whole=True, is_right=True, rank=2),
        *(Column(name, is_whole=True, is_right=True, rank=3 * bool(at)) for at, name in enumerate(metrics[:_METRICS])),
        Column("", is_whole=True),
    ]
    return Table(
        columns,
        [
            [
                row.run,
                *(row.values.get(key, "") for key in keys),
                state_cell(row.status),
                "" if row.took_s is None else duration(row.took_s),
                *(shown(row.metrics.get(name)) for name in metrics[:_METRICS]),
                good("best") if best is not None and row.run == best.run else dim("deleted") if row.is_deleted else "",
            ]
            for row in (rows if shown_rows is None else shown_rows)
        ],
    )


def sweep_lines(view: SweepView | None) -> Iterator[Line | Table]:
    """The results of a sweep; nothing without one."""
    if view is not None:
        yield sweep_table(view.rows, view.goal)
        yield best_line(view.rows, view.goal)


def best_line(rows: Sequence[SweepRow], goal: Goal | None) -> Line:
    """`best loss 0.1: lr=0.1 size=1`; or why no run is the best."""
    best = best_of(rows, goal)
    if goal is None:
        return "no metrics to compare the runs by"
    if best is None:
        return f"no run that Completed has the metric {goal.name}"
    return ["best ", bold(f"{goal.name} {shown(best.metrics[goal.name])}"), f"  {label(best.values)}  ", best.run]


def count_line(rows: Sequence[SweepRow]) -> Line:
    """`5 of 8 finished  2 Running  1 Failed`."""
    counted = Counter(row.status for row in rows)
    done = sum(number for state, number in counted.items() if is_final(state))
    line: list[Cell] = [f"{done} of {len(rows)} finished"]
    for state in _ORDER:
        if counted[state] and (state is not RunState.COMPLETED or counted[state] < done):
            line += ["  ", Styled(f"{counted[state]} {state}", state_cell(state).style)]
    return line


def fitting(rows: Sequence[SweepRow], goal: Goal | None, room: int) -> Sequence[SweepRow]:
    """The rows that a screen has room for, in order: those that run now first, then the best, then the others."""
    if len(rows) <= room:
        return rows

    def key(row: SweepRow) -> tuple[bool, tuple[bool, float]]:
        return row.status != RunState.RUNNING, (True, 0.0) if goal is None else goal.rank(row.metrics)

    kept = {row.run for row in sorted(rows, key=key)[:room]}
    return [row for row in rows if row.run in kept]


def changed_states(rows: Sequence[SweepRow], goal: Goal | None, shown_states: dict[str, str]) -> Iterator[Line]:
    """Changes of runs where nothing is redrawn; `shown_states` has, by run, the state that was shown last."""
    for row in rows:
        if (row.status == RunState.RUNNING or is_final(row.status)) and shown_states.get(row.run) != row.status:
            shown_states[row.run] = row.status
            yield _sweep_row(row, goal)


def _sweep_row(row: SweepRow, goal: Goal | None) -> Line:
    metrics: Mapping[str, object] = row.metrics
    value = f"  {goal.name} {shown(metrics[goal.name])}" if goal is not None and goal.name in metrics else ""
    took = f" in {duration(row.took_s)}" if row.took_s is not None and is_final(row.status) else ""
    return ["run ", highlight(row.run), f"  {label(row.values)}  ", state_cell(row.status), f"{took}{value}"]


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
        yield f"  published {name}, snapshot {snapshot[:ID_CELLS]}; download it with:"
        yield Message("    ", Command("sync", "--pull", below_data_blobs(name)))
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
        name: (f"from {document['from']}" if "from" in document else document.get("snapshot", "")[:ID_CELLS])
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


def took(record: RunRecord) -> str:
    """How long the script ran; empty while that is not known."""
    seconds = script_s(record)
    return "" if seconds is None else duration(seconds)


def fetched_text(result: FetchResult, root: Path) -> list[Cell]:
    """What a fetch downloaded, and from where more may come. `root` is the project's folder."""
    is_active = not is_final(result.status)
    if not result.files and is_active:
        return [f"no outputs saved yet (run is {result.status}); try again later: ", Command("fetch", result.run)]
    if not result.files:
        return ["no outputs"]
    new = ", already up to date"
    if result.downloaded_files:
        is_all = result.downloaded_files == result.files
        new = "" if is_all else f", {size(result.downloaded_bytes)} of it new"
    more = f"; run is {result.status}, more may follow" if is_active else ""
    folder = linked(f"{result.to}/", root / result.to)
    return ["outputs in ", folder, f"  ({count(result.files, 'file')}, {size(result.bytes)}{new}){more}"]


def named_values(values: Mapping[str, str]) -> str:
    return "\n".join(f"{name} {value}" for name, value in values.items())


def variable_values(variables: Mapping[str, str | None]) -> str:
    """The variables, secrets hidden."""
    return named_values({name: "(secret)" if value is None else value for name, value in variables.items()})


_NAME_CELLS = len("distribution") + 2
"""What the names of fields take at most."""


def run_lines(view: RunView, root: Path, width: int) -> Iterator[Line]:
    record = view.record
    error = record.error or {}
    git = record.spec.git or {}
    dirty = " (with uncommitted changes)" if git.get("dirty") or git.get("is_dirty") else ""
    yield from fields(
        [
            ("run", highlight(record.run)),
            ("name", record.spec.name),
            ("status", state_cell(record.status)),
            ("now", record.waits_for),
            ("error", error.get("message", "")),
            ("hint", error.get("hint", "")),
            ("exit code", "" if record.exit_code is None else str(record.exit_code)),
            ("services", named_values(record.services)),
            ("experiment", record.spec.experiment),
            ("script", record.spec.script),
            ("description", record.spec.description),
            ("runs", (record.spec.command or "").strip()),
            ("children", "" if record.spec.sweep else _children(record)),
            ("sweep", record.spec.parent or ""),
            ("values", label(record.spec.combination)),
            ("inputs", named_values({name: next(iter(one.values()), "") for name, one in record.spec.inputs.items()})),
            ("arguments", shlex.join(record.spec.arguments)),
            ("config", "\n".join([record.spec.config or "", *_values(view.config)]).strip()),
            ("datasets", named_values({name: snapshot[:ID_CELLS] for name, snapshot in record.spec.datasets.items()})),
            ("produces", "\n".join(record.spec.produces)),
            ("published", named_values({name: snapshot[:ID_CELLS] for name, snapshot in record.published.items()})),
            ("workspace", record.spec.workspace),
            ("compute", record.spec.compute),
            ("distribution", record.spec.process_group.text),
            ("environment", record.spec.environment),
            ("code", record.spec.code),
            ("mode", record.spec.mode),
            ("variables", variable_values(record.spec.variables)),
            ("tags", named_values(record.spec.tags)),
            ("timeout", "" if record.spec.timeout_s is None else duration(record.spec.timeout_s)),
            ("git", f"{git.get('commit', '')}{dirty}" if git else ""),
            ("from run", record.spec.from_run or ""),
            ("command", shlex.join(record.command_line)),
            ("user", record.made_by),
            ("created", moment(record.created_at)),
            *((state.lower(), moment(at)) for state, at in record.times.items() if state != "NotStarted"),
            ("phases", phases_text(record, width - _NAME_CELLS)),
            ("took", took(record)),
            ("resources", resources_text(record)),
            ("metrics", "\n".join(_metrics(view.metrics))),
            ("outputs", _outputs(record, root)),
            ("studio", linked(record.studio_url or "", record.studio_url or "")),
        ]
    )


def _outputs(record: RunRecord, root: Path) -> Cell:
    """Of a sweep each run has its own."""
    folder = "" if record.spec.sweep else record.outputs
    return linked(folder, root / folder) if folder and os.path.isdir(root / folder) else folder


def _children(record: RunRecord) -> str:
    return "\n".join(f"{one['name']}  {one['status']}  {one['run']}" for one in record.children)


def _values(values: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {value_text(value)}" for name, value in values.items()]


def _metrics(metrics: Metrics) -> list[str]:
    """The last values, and what else `metrics.json` says."""
    others = {name: value for name, value in metrics.document.items() if name not in metrics.last}
    return [*(f"{name} = {as_json(value)}" for name, value in metrics.last.items()), *_values(others)]


_MAX_LIST = 200
"""Characters up to which a list in a config or in metrics is shown."""


def value_text(value: Any) -> str:
    """`-` for a missing value; of a long list, for example one number per epoch, its length."""
    if value is None:
        return "-"
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return f"{len(value)} items (--json shows them)" if isinstance(value, list) and len(text) > _MAX_LIST else text
