"""`amlctl runs …`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from amlctl.cli.command_group import AppGroup, TyperApp, examples, option
from amlctl.cli.commands import cancel
from amlctl.cli.completion import Run, complete_run
from amlctl.cli.invocation import invocation
from amlctl.cli.questions import confirm
from amlctl.cli.render.tables import (
    Cell,
    Column,
    Line,
    Styled,
    Table,
    bad,
    between,
    cell_width,
    duration,
    fields,
    good,
    highlight,
    moment,
    warning,
)
from amlctl.core.message import ID_CELLS, Command, Message
from amlctl.core.metrics import Metrics, as_json
from amlctl.core.run import RunRecord
from amlctl.core.run_state import FINAL_STATES, RunState
from amlctl.errors import UsageError
from amlctl.operations import runs as operations
from amlctl.workspaces.contract import Workspace


class RunsGroup(AppGroup):
    """`amlctl runs` alone lists; options of `list` may follow it directly."""

    def parse_args(self, ctx: Any, args: Any) -> Any:
        is_command = bool(args) and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if is_command or ctx.resilient_parsing else ["list", *args])


app = TyperApp(
    cls=RunsGroup,
    help="List, show, compare, cancel, open and delete runs; without a command: list",
    examples=examples(
        "amlctl runs # newest first",
        "amlctl runs show @last # everything recorded",
        "amlctl runs compare @2 @last # what differs",
    ),
)

Yes = Annotated[bool, option("Skip the confirmation", "--yes", "-y")]


@app.command(
    "list",
    epilog=examples("amlctl runs # all", "amlctl runs list --limit 5 --status Failed # the last five that failed"),
)
def list_(
    ctx: typer.Context,
    limit: Annotated[int | None, option("Show the newest N only", "--limit", "-n", min=1, metavar="N")] = None,
    experiment: Annotated[str | None, option("Show runs of this experiment only", metavar="NAME")] = None,
    status: Annotated[str | None, option("Show runs in this state only, for example Failed", metavar="STATE")] = None,
) -> None:
    """List runs, newest first"""
    states = {state.value.lower(): state.value for state in RunState}
    if status is not None and status.lower() not in states:
        raise UsageError(f"Invalid --status {status!r}", hint=f"use one of {', '.join(states.values())}")
    call = invocation(ctx)
    app_ = call.app if experiment is None else call.app.in_experiment(experiment)

    records = [
        record
        for record in operations.list_runs(app_)
        if experiment in (None, record.spec.experiment) and (status is None or status.lower() == record.status.lower())
    ][:limit]
    call.result(
        {"runs": [record.to_json() for record in records]} if call.is_json else None,
        _list(records, call.output.width, is_filtered=bool(experiment or status)),
    )


@app.command(
    epilog=examples(
        "amlctl runs show @last # config, data, code, metrics", "amlctl runs show @last --json # for a script"
    )
)
def show(ctx: typer.Context, run: Run) -> None:
    """Show everything recorded about a run, with its config and metrics"""
    call = invocation(ctx)
    app_, reference = call.app_of(run)
    run_id = operations.resolve_run(app_.workspace, reference)
    view = operations.show(app_, run_id)
    call.result(view.to_json(), _details(view))


@app.command(epilog=examples("amlctl runs compare @2 @last # the newest run and the one before"))
def compare(
    ctx: typer.Context,
    run: Annotated[
        list[str], typer.Argument(metavar="RUN RUN...", autocompletion=complete_run, help="Two or more runs")
    ],
) -> None:
    """Show what differs between runs: config, code, data, environment, results, metrics"""
    call = invocation(ctx)
    found = []
    for one in run:
        app_, reference = call.app_of(one)
        run_id = operations.resolve_run(app_.workspace, reference)
        found.append(operations.RunAt(run_id, app_))
    comparison = operations.compare(found)
    call.result(comparison.to_json(), _comparison(comparison, call.output.width))


app.command("cancel", epilog=cancel.EXAMPLES)(cancel.cancel)


@app.command("open", epilog=examples("amlctl runs open @last # in the browser, or the folder of its outputs"))
def open_(ctx: typer.Context, run: Run) -> None:
    """Open a run's page in Studio, or the folder of its fetched outputs, and print the address"""
    call = invocation(ctx)
    app_, reference = call.app_of(run)
    run_id = operations.resolve_run(app_.workspace, reference)
    address = operations.open_run(app_, run_id)
    if call.output.out_is_terminal and not call.is_json:
        typer.launch(address)
    call.result({"run": run_id, "place": address}, [address])


@app.command(epilog=examples("amlctl runs delete @last --yes # without confirmation"))
def delete(
    ctx: typer.Context,
    run: Annotated[list[str], typer.Argument(metavar="RUN...", autocompletion=complete_run, help="Finished runs")],
    yes: Yes = False,
) -> int:
    """Delete finished runs: record, logs and stored outputs; what was fetched stays"""
    call = invocation(ctx)
    workspaces: dict[str, Workspace] = {}
    for one in run:
        app_, reference = call.app_of(one)
        workspaces.setdefault(operations.resolve_run(app_.workspace, reference), app_.workspace)
    found = list(workspaces)
    if not yes:
        if not call.output.can_ask:
            raise UsageError(
                "cannot ask for confirmation without a terminal", hint=Command("runs", "delete", *found, "--yes")
            )
        if not confirm(f"Delete {', '.join(found)}: record, logs and stored outputs?", call.output):
            return 1
    kept = {run_id: stays for run_id, stays in operations.delete(workspaces).items() if stays}
    call.result(
        {"deleted": found, **({"kept": kept} if kept else {})},
        [
            line
            for run_id in found
            for line in (f"deleted {run_id}", *(f"  kept: {what}" for what in kept.get(run_id, ())))
        ],
    )
    return 0


def state_cell(state: str) -> Styled:
    """The name of a run's state in its color."""
    styles: dict[str, Callable[[str], Styled]] = {
        RunState.COMPLETED: good,
        RunState.FAILED: bad,
        RunState.CANCELED: warning,
        RunState.RUNNING: highlight,
    }
    return styles[state](state) if state in styles else Styled(state, "")


def took(record: RunRecord) -> str:
    """From the start of the script to the end of the run; empty if one is missing."""
    end = next((at for state, at in record.times.items() if state in FINAL_STATES), "")
    return between(record.times.get(RunState.RUNNING, ""), end)


def named_values(values: Mapping[str, str]) -> str:
    return "\n".join(f"{name} {value}" for name, value in values.items())


def variable_values(variables: Mapping[str, str | None]) -> str:
    """The variables, secrets hidden."""
    return named_values({name: "(secret)" if value is None else value for name, value in variables.items()})


_WIDE = 110
"""Cells from which on the list has room for whole paths, the experiment and the year."""


def _list(records: Sequence[RunRecord], width: int, *, is_filtered: bool) -> Iterator[Line | Table]:
    if not records:
        yield (
            Message("No matching runs. See all with: ", Command("runs"))
            if is_filtered
            else Message("No runs yet: ", Command("submit", "SCRIPT"))
        )
        return
    is_wide = width >= _WIDE
    has_workspaces = len({record.spec.workspace for record in records}) > 1
    columns = [
        Column("RUN", is_whole=True),
        Column("STATUS", is_whole=True),
        Column("WORKSPACE", rank=4),
        Column("SCRIPT", rank=3),
        Column("EXPERIMENT", rank=5),
        Column("CREATED", is_whole=True, rank=2),
        Column("TOOK", is_whole=True, is_right=True, rank=1),
    ]
    rows: list[list[Cell]] = [
        [
            record.run,
            state_cell(record.status),
            record.spec.workspace if has_workspaces else "",
            _script_or_name(record, is_short=not is_wide),
            record.spec.experiment if is_wide else "",
            moment(record.created_at) if is_wide else moment(record.created_at)[5:16],
            took(record),
        ]
        for record in records
    ]
    yield Table(columns, rows)


def _script_or_name(record: RunRecord, *, is_short: bool) -> str:
    """The script; the name for a job of another tool, which has none."""
    if not record.spec.script:
        return record.spec.name
    return record.spec.script.rpartition("/")[2] if is_short else record.spec.script.removeprefix("pipeline/")


def _details(view: operations.RunView) -> Iterator[Line]:
    record = view.record
    error = record.error or {}
    git = record.spec.git or {}
    dirty = " (with uncommitted changes)" if git.get("dirty") or git.get("is_dirty") else ""
    yield from fields(
        [
            ("run", highlight(record.run)),
            ("name", record.spec.name),
            ("status", state_cell(record.status)),
            ("waits for", record.waits_for),
            ("error", error.get("message", "")),
            ("exit code", "" if record.exit_code is None else str(record.exit_code)),
            ("services", named_values(record.services)),
            ("experiment", record.spec.experiment),
            ("script", record.spec.script),
            ("description", record.spec.description),
            ("runs", (record.spec.command or "").strip()),
            ("children", "\n".join(f"{one['name']}  {one['status']}  {one['run']}" for one in record.children)),
            ("inputs", named_values({name: next(iter(one.values()), "") for name, one in record.spec.inputs.items()})),
            ("arguments", shlex.join(record.spec.arguments)),
            ("config", "\n".join([record.spec.config or "", *_values(view.config)]).strip()),
            ("datasets", named_values({name: snapshot[:ID_CELLS] for name, snapshot in record.spec.datasets.items()})),
            ("produces", "\n".join(record.spec.produces)),
            ("published", named_values({name: snapshot[:ID_CELLS] for name, snapshot in record.published.items()})),
            ("workspace", record.spec.workspace),
            ("compute", record.spec.compute),
            ("distribution", record.spec.layout.text),
            ("environment", record.spec.environment),
            ("code", record.spec.code),
            ("mode", record.spec.mode),
            ("variables", variable_values(record.spec.variables)),
            ("tags", named_values(record.spec.tags)),
            ("timeout", "" if record.spec.timeout_s is None else duration(record.spec.timeout_s)),
            ("git", f"{git.get('commit', '')}{dirty}" if git else ""),
            ("from run", record.spec.from_run or ""),
            ("command", shlex.join(record.command_line)),
            ("user", f"{record.user}@{record.host}" if record.user and record.host else record.user or record.host),
            ("created", moment(record.created_at)),
            *((state.lower(), moment(at)) for state, at in record.times.items() if state != "NotStarted"),
            ("took", took(record)),
            ("metrics", "\n".join(_metrics(view.metrics))),
            ("outputs", record.outputs),
            ("studio", record.studio_url or ""),
        ]
    )


def _values(values: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {_value(value)}" for name, value in values.items()]


def _metrics(metrics: Metrics) -> list[str]:
    """The last values, and what else `metrics.json` says."""
    others = {name: value for name, value in metrics.document.items() if name not in metrics.last}
    return [*(f"{name} = {as_json(value)}" for name, value in metrics.last.items()), *_values(others)]


_MAX_LIST = 200
"""Characters up to which a list in a config or in metrics is shown."""


def _value(value: Any) -> str:
    """`-` for a missing value; of a long list, for example one number per epoch, its length."""
    if value is None:
        return "-"
    text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
    return f"{len(value)} items (--json shows them)" if isinstance(value, list) and len(text) > _MAX_LIST else text


def _comparison(comparison: operations.Comparison, width: int) -> Iterator[Line | Table]:
    """A row for each difference; below, value by value, those too wide for one. Where the ids of the runs do not fit
    side by side, they become numbers."""
    if not comparison.rows:
        yield "the runs do not differ in anything recorded"
        return
    rows = [[row.field, *map(_value, row.values)] for row in comparison.rows]
    longest = max(cell_width(row[0]) for row in rows)
    headings = list(comparison.runs)
    if longest + sum(cell_width(run) + 2 for run in headings) > width:
        headings = [f"({number})" for number in range(1, len(headings) + 1)]
        yield from (f"{number}  {run}" for number, run in zip(headings, comparison.runs, strict=True))
    room = (width - longest) // len(headings) - 2
    wide = [row for row in rows if max(map(cell_width, row[1:])) > max(room, *map(cell_width, headings))]
    yield Table(
        [Column(heading, is_whole=True) for heading in ("", *headings)], [row for row in rows if row not in wide]
    )
    for row in wide:
        yield row[0]
        yield from fields(zip(headings, row[1:], strict=True), indent="  ")
