"""Runs as lines: the list, one run, a comparison, how a submit ended, what a fetch brought."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from amlctl.cli.render.quantities import between, duration, moment, size
from amlctl.cli.render.style import Style
from amlctl.cli.render.tables import Column, cell_width, fields, printable, table
from amlctl.cli.render.text.data import ID_CELLS
from amlctl.core.message import Command, Message
from amlctl.core.run import RunRecord
from amlctl.core.run_state import FINAL_STATES, RunState, is_final
from amlctl.core.wording import count

if TYPE_CHECKING:
    from amlctl.operations.fetch import FetchResult
    from amlctl.operations.runs import CancelResult, Comparison, RunView
    from amlctl.operations.submit.result import SubmitPlan, SubmitResult


_MAX_LIST = 200
"""Characters up to which a list in a config or in metrics is shown."""


def painted_state(style: Style) -> Callable[[str], str]:
    """Paints the name of a state."""
    paints: dict[str, Callable[[str], str]] = {
        RunState.COMPLETED: style.good,
        RunState.FAILED: style.bad,
        RunState.CANCELED: style.warning,
        RunState.RUNNING: style.name,
    }

    def paint(state: str) -> str:
        return paints.get(state, str)(printable(state))

    return paint


def took(record: RunRecord) -> str:
    """From the start of the script to the end of the run; empty while it has none of both."""
    end = next((at for state, at in record.times.items() if state in FINAL_STATES), "")
    return between(record.times.get(RunState.RUNNING, ""), end)


def list_lines(records: Sequence[RunRecord], style: Style, width: int, *, is_filtered: bool = False) -> list[str]:
    if not records:
        return [
            Message("No matching runs. See all with: ", Command("runs"))
            if is_filtered
            else Message("no runs yet: ", Command("submit", "SCRIPT"))
        ]
    columns = [
        Column("RUN", is_whole=True),
        Column("STATUS", is_whole=True, paint=painted_state(style)),
        Column("WORKSPACE", rank=4),
        Column("SCRIPT", rank=3),
        Column("EXPERIMENT", rank=5),
        Column("CREATED", is_whole=True, rank=2),
        Column("TOOK", is_whole=True, is_right=True, rank=1),
    ]
    has_room = width >= 110
    has_several = len({record.spec.workspace for record in records}) > 1
    rows = [
        [
            record.run,
            record.status,
            record.spec.workspace if has_several else "",
            _script_or_name(record, is_short=not has_room),
            record.spec.experiment if has_room else "",
            moment(record.created_at) if has_room else moment(record.created_at)[5:16],
            took(record),
        ]
        for record in records
    ]
    return table(columns, rows, width)


def _script_or_name(record: RunRecord, *, is_short: bool) -> str:
    """A job that another tool has made has no script, as far as can be seen."""
    if not record.spec.script:
        return record.spec.name
    return record.spec.script.rpartition("/")[2] if is_short else record.spec.script.removeprefix("pipeline/")


def show_lines(view: RunView, style: Style) -> list[str]:
    """Everything of a run that a person may want to know."""
    record = view.record
    error = record.error or {}
    git = record.spec.git or {}
    dirty = " (with uncommitted changes)" if git.get("dirty") or git.get("is_dirty") else ""
    pairs = [
        ("run", style.name(printable(record.run))),
        ("name", record.spec.name),
        ("status", painted_state(style)(record.status)),
        ("waits for", record.waits_for),
        ("error", error.get("message", "")),
        ("exit code", "" if record.exit_code is None else str(record.exit_code)),
        ("services", _named(record.services)),
        ("experiment", record.spec.experiment),
        ("script", record.spec.script),
        ("description", record.spec.description),
        ("runs", (record.spec.command or "").strip()),
        ("children", "\n".join(f"{one['name']}  {one['status']}  {one['run']}" for one in record.children)),
        ("inputs", _named({name: next(iter(one.values()), "") for name, one in record.spec.inputs.items()})),
        ("arguments", shlex.join(record.spec.arguments)),
        ("config", "\n".join([record.spec.config or "", *_values(view.config)]).strip()),
        ("datasets", _named({name: snapshot[:ID_CELLS] for name, snapshot in record.spec.datasets.items()})),
        ("produces", "\n".join(record.spec.produces)),
        ("published", _named({name: snapshot[:ID_CELLS] for name, snapshot in record.published.items()})),
        ("workspace", record.spec.workspace),
        ("compute", record.spec.compute),
        ("distribution", record.spec.layout.text),
        ("environment", record.spec.environment),
        ("code", record.spec.code),
        ("mode", record.spec.mode),
        ("variables", _named({k: "(secret)" if v is None else v for k, v in record.spec.variables.items()})),
        ("tags", _named(record.spec.tags)),
        ("timeout", "" if record.spec.timeout_s is None else duration(record.spec.timeout_s)),
        ("git", f"{git.get('commit', '')}{dirty}" if git else ""),
        ("from run", record.spec.from_run or ""),
        ("command", shlex.join(record.command_line)),
        ("user", f"{record.user}@{record.host}" if record.user and record.host else record.user or record.host),
        ("created", moment(record.created_at)),
        *((state.lower(), moment(at)) for state, at in record.times.items() if state != "NotStarted"),
        ("took", took(record)),
        ("metrics", "\n".join(_values(view.metrics))),
        ("outputs", record.outputs),
        ("studio", record.studio_url or ""),
    ]
    return _painted_fields(
        [pairs[0], *((name, value if name == "status" else _lines(value)) for name, value in pairs[1:])]
    )


def _painted_fields(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """`fields`, for values that hold colour already; what is not ours in them, `Style.safe` shows as text."""
    shown = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    return [
        f"{name if i == 0 else '':<{width}}  {line}"
        for name, value in shown
        for i, line in enumerate(value.split("\n"))
    ]


def _lines(value: str) -> str:
    return "\n".join(map(printable, value.split("\n")))


def _values(values: Mapping[str, Any]) -> list[str]:
    return [f"{printable(name)} = {printable(_value(value))}" for name, value in values.items()]


def _named(values: Any) -> str:
    return "\n".join(f"{name} {value}" for name, value in values.items())


def compare_lines(comparison: Comparison, width: int) -> list[str]:
    """One row for each thing that is not the same in all runs; below them those too wide for one, value by value."""
    if not comparison.rows:
        return ["the runs do not differ in anything that is recorded"]
    rows = [[row.field, *(_value(value) for value in row.values)] for row in comparison.rows]
    longest = max(cell_width(row[0]) for row in rows)
    is_wide = longest + sum(cell_width(run) + 2 for run in comparison.runs) > width
    names = [f"({number})" for number in range(1, len(comparison.runs) + 1)] if is_wide else list(comparison.runs)
    room = max((width - longest) // len(names) - 2, *map(cell_width, names))
    beside = [row for row in rows if max(map(cell_width, row[1:])) <= room]
    lines = [f"{name}  {run}" for name, run in zip(names, comparison.runs, strict=True)] if is_wide else []
    if beside:
        lines += table([Column(heading, is_whole=True) for heading in ("", *names)], beside, width)
    for row in rows:
        if row not in beside:
            named = [(f"  {name}", value) for name, value in zip(names, row[1:], strict=True)]
            lines += [printable(row[0]), *fields(named)]
    return lines


def _value(value: Any) -> str:
    """`-`: the run has no such thing. A long list, as of what each epoch came to, is told by its length."""
    if value is None:
        return "-"
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return f"{len(value)} items (--json shows them)" if isinstance(value, list) and len(text) > _MAX_LIST else text


def cancel_lines(result: CancelResult) -> list[str]:
    if result.was_ended:
        return [f"run {result.run} had ended already: {result.status}"]
    return [f"run {result.run}: {result.status}; its outputs so far are kept"]


def submit_lines(result: SubmitResult, style: Style) -> list[str]:
    """How the run ended, where its outputs are, and what can be typed next."""
    record = result.record
    state = painted_state(style)(record.status)
    run = style.name(record.run)
    if not record.is_final:
        return [f"run {run}  {state}", Message("  ", Command("logs", record.run, "-f"))]
    code = f" with exit code {record.exit_code}" if record.exit_code else ""
    time = f" in {took(record)}" if took(record) else ""
    lines = [f"run {run}  {state}{code}{time}"]
    lines += [f"  published {printable(name)}, snapshot {s[:ID_CELLS]}" for name, s in record.published.items()]
    if result.fetched is not None:
        lines.append(Message("  ", _fetched(result.fetched)))
    elif record.outputs:
        lines.append(Message("  outputs are not here: ", Command("fetch", record.run)))
    if record.studio_url:
        lines.append(f"  {printable(record.studio_url)}")
    return lines


def fetch_lines(result: FetchResult, style: Style) -> list[str]:
    return [Message(f"run {style.name(result.run)}  ", _fetched(result))]


def _fetched(result: FetchResult) -> str:
    is_going = not is_final(result.status)
    if not result.files and is_going:
        told = f"nothing to fetch yet: it is {result.status}; outputs are saved while its script works, so later: "
        return Message(told, Command("fetch", result.run))
    if not result.files:
        return "nothing to fetch"
    new = (
        f"{size(result.downloaded_bytes)} of it new"
        if result.downloaded_files not in (0, result.files)
        else "all there already"
        if not result.downloaded_files
        else ""
    )
    what = f"{count(result.files, 'file')}, {size(result.bytes)}" + (f", {new}" if new else "")
    more = f"; it is {result.status}, so more may come" if is_going else ""
    return f"outputs in {printable(result.to)}/  ({what}){more}"


def plan_lines(plan: SubmitPlan) -> list[str]:
    """What a submit would send and run."""
    sending = {
        name: f"{document.get('snapshot', '')[:ID_CELLS]}"
        + (f"  {size(document['uploaded_bytes'])} to send" if document.get("uploaded_bytes") else "")
        for name, document in plan.datasets.items()
    }
    ready = "ready" if plan.environment.is_ready else "to be made"
    return fields(
        [
            ("would run", shlex.join(plan.command)),
            ("config", plan.spec.config or ""),
            ("datasets", _named(sending)),
            ("produces", "\n".join(plan.spec.produces)),
            ("code", f"{plan.spec.code[:ID_CELLS]}  {count(plan.code_files, 'file')}, {size(plan.code_bytes)}"),
            ("environment", f"{plan.environment.id[:ID_CELLS]}  {ready}"),
            ("workspace", plan.spec.workspace),
            ("compute", plan.spec.compute),
            ("distribution", plan.spec.layout.text),
            ("mode", plan.spec.mode),
            ("experiment", plan.spec.experiment),
            ("variables", _named({k: "(secret)" if v is None else v for k, v in plan.spec.variables.items()})),
        ]
    )
