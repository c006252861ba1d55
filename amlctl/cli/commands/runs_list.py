"""`amlctl runs list`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from amlctl.cli.command_group import examples, option
from amlctl.cli.invocation import invocation
from amlctl.cli.render.tables import Column, Line, Table, moment, number, state_cell, whole
from amlctl.core.message import Command, Message
from amlctl.errors import UsageError

if TYPE_CHECKING:
    from amlctl.core.metrics import Goal
    from amlctl.core.run import RunRecord

EXAMPLES = examples(
    "amlctl runs # newest first",
    "amlctl runs --sort accuracy # the best first",
    "amlctl runs list --status Failed --limit 5 # the last five that failed",
    "amlctl runs -q # ids only, one a line",
)
_BY_TIME = "time"
_DEFAULT_LIMIT = 20
_WIDE = 110
"""Cells from which on the list has room for whole paths, the experiment and the year."""

_LONGEST_HEADING = 14


def list_(
    ctx: typer.Context,
    limit: Annotated[
        int | None,
        option(f"Show N runs only; {_DEFAULT_LIMIT} unless --json or --quiet", "--limit", "-n", min=1, metavar="N"),
    ] = None,
    all_: Annotated[bool, option("Show all runs", "--all", "-a")] = False,
    experiment: Annotated[str | None, option("Show runs of this experiment only", metavar="NAME")] = None,
    status: Annotated[str | None, option("Show runs in this state only, for example Failed", metavar="STATE")] = None,
    metric: Annotated[
        str | None,
        option(
            "Show this metric; default: the setting runs.metric, or the first one",
            metavar="NAME",
        ),
    ] = None,
    sort: Annotated[
        str,
        option(
            "Sort by a metric, the best first (min:NAME, max:NAME), or by time",
            metavar="METRIC|time",
        ),
    ] = _BY_TIME,
) -> None:
    """List runs, newest first, with their key metric"""
    from amlctl.core.events import Warned
    from amlctl.core.metrics import goal_of
    from amlctl.core.run_state import RunState
    from amlctl.operations import runs as operations

    states = {state.value.lower(): state.value for state in RunState}
    if status is not None and status.lower() not in states:
        raise UsageError(f"Invalid --status {status!r}", hint=f"use one of {', '.join(states.values())}")
    if all_ and limit is not None:
        raise UsageError("--all and --limit exclude each other")
    call = invocation(ctx)
    app_ = call.app if experiment is None else call.app.in_experiment(experiment)
    found = [
        record
        for record in operations.list_runs(app_)
        if experiment in (None, record.spec.experiment) and (status is None or status.lower() == record.status.lower())
    ]
    is_sorted = sort != _BY_TIME
    goal = operations.key_metric(found, metric or (sort if is_sorted else app_.settings.runs.metric))
    if is_sorted:
        found = operations.best_first(found, goal_of(sort))
    if metric is not None and (missing := operations.missing_metric(found, goal_of(metric))):
        call.reporter(Warned(Message(missing.message, "; ", missing.hint)))
    is_ids = call.options.is_quiet and not call.is_json
    if limit is None and not (all_ or is_ids or call.is_json):
        limit = _DEFAULT_LIMIT
    records = found[:limit]
    if is_ids:
        call.result(None, [record.run for record in records])
        return
    call.result(
        {"runs": [record.to_json() for record in records], **({"metric": goal.name} if goal else {})}
        if call.is_json
        else None,
        _list(records, goal, call.output.width, is_filtered=bool(experiment or status), is_by_time=not is_sorted),
    )
    if len(records) < len(found) and not call.is_json:
        call.output.write_line([f"… {len(found) - len(records)} more: --all"])


def _list(
    records: Sequence[RunRecord], goal: Goal | None, width: int, *, is_filtered: bool, is_by_time: bool
) -> Iterator[Line | Table]:
    """By time the runs of a sweep follow it, indented."""
    from amlctl.cli.render.run_text import took
    from amlctl.core.metrics import shown
    from amlctl.core.run_id import parent_of

    if not records:
        yield (
            Message("No matching runs. See all with: ", Command("runs"))
            if is_filtered
            else Message("No runs yet: ", Command("submit", "SCRIPT"))
        )
        return
    is_wide = width >= _WIDE
    has_workspaces = len({record.spec.workspace for record in records}) > 1
    has_users = len({record.user for record in records if record.user}) > 1
    families = {record.run for record in records if record.spec.sweep} if is_by_time else set()
    when = slice(None) if is_wide else slice(5, 16)
    script_rank, created_rank = (3, 4) if families else (4, 3)  # values of a sweep say more than a time that ids have
    yield Table.of(
        records,
        {
            whole("RUN"): lambda one: f"  {one.run}" if parent_of(one.run)[0] in families else one.run,
            whole("STATUS"): lambda one: state_cell(one.status),
            Column("USER", rank=5): lambda one: one.user if has_users else "",
            Column("WORKSPACE", rank=6): lambda one: one.spec.workspace if has_workspaces else "",
            Column("SCRIPT", rank=script_rank): lambda one: _script_or_name(one, is_short=not is_wide),
            Column("EXPERIMENT", rank=7): lambda one: one.spec.experiment if is_wide else "",
            whole("CREATED", rank=created_rank): lambda one: moment(one.created_at)[when],
            number("TOOK", rank=2): took,
            number(_heading(goal.name, width) if goal else "", rank=1): (
                lambda one: shown(one.metrics.get(goal.name)) if goal else ""
            ),
        },
    )


def _heading(metric: str, width: int) -> str:
    """Its end says most: `…tion.accuracy`."""
    return metric if len(metric) <= _LONGEST_HEADING or width >= _WIDE else f"…{metric[-_LONGEST_HEADING + 1 :]}"


def _script_or_name(record: RunRecord, *, is_short: bool) -> str:
    """The script, or of a run of a sweep its values; the name for a job of another tool, which has no script."""
    from amlctl.core.sweep import label

    if record.spec.combination:
        return label(record.spec.combination)
    if not record.spec.script:
        return record.spec.name
    return record.spec.script.rpartition("/")[2] if is_short else record.spec.script.removeprefix("pipeline/")
