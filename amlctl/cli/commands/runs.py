"""`amlctl runs …`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amlctl.cli.command_group import AppGroup, TyperApp, examples, option
from amlctl.cli.commands import cancel, runs_list, runs_plot, runs_report, runs_share
from amlctl.cli.commands.runs_list import took
from amlctl.cli.commands.runs_plot import each_at, runs_at
from amlctl.cli.invocation import invocation
from amlctl.cli.output import open_in_desktop
from amlctl.cli.parameters import LAST, LastRun, Yes
from amlctl.cli.questions import confirm
from amlctl.cli.render.tables import (
    Cell,
    Line,
    Table,
    duration,
    fields,
    highlight,
    linked,
    moment,
    state_cell,
)
from amlctl.core.message import ID_CELLS, Command, count
from amlctl.errors import UsageError

if TYPE_CHECKING:
    from amlctl.core.metrics import Metrics
    from amlctl.core.run import RunRecord
    from amlctl.operations import runs as operations
    from amlctl.workspaces.contract import Workspace


class RunsGroup(AppGroup):
    """`amlctl runs` alone lists; options of `list` may follow it directly."""

    def parse_args(self, ctx: Any, args: Any) -> Any:
        is_command = bool(args) and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if is_command or ctx.resilient_parsing else ["list", *args])


app = TyperApp(
    cls=RunsGroup,
    help="List, show, compare, plot, report, share, wait for, cancel, open and delete runs; without a command: list",
    examples=examples(
        "amlctl runs # newest first",
        "amlctl runs show @last # everything recorded",
        "amlctl runs compare @2 @last # what differs",
        "amlctl runs report # one HTML page to give to others",
    ),
)

app.command("list", epilog=runs_list.EXAMPLES)(runs_list.list_)


@app.command(
    epilog=examples(
        "amlctl runs show @last # config, data, code, metrics", "amlctl runs show @last --json # for a script"
    )
)
def show(ctx: typer.Context, run: LastRun = LAST) -> None:
    """Show everything recorded about a run, with its config and metrics"""
    from amlctl.cli.render.sweeps import sweep_lines
    from amlctl.operations import runs as operations

    call = invocation(ctx)
    run_id, app_ = call.find_run(run)
    view = operations.show(app_, run_id)
    call.result(view.to_json(), chain(_details(view, app_.project.root, call.output.width), sweep_lines(view.results)))


@app.command(
    epilog=examples(
        "amlctl runs compare @2 @last # the newest run and the one before",
        "amlctl runs compare @3 @last --patch # with what changed in the code",
        "amlctl runs compare RUN RUN RUN --md # for a pull request",
    )
)
def compare(
    ctx: typer.Context,
    run: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Two or more runs")],
    patch: Annotated[bool, option("Show what changed in the code, line by line", "--patch", "-p")] = False,
    md: Annotated[bool, option("Print a table in Markdown", "--md")] = False,
    csv_: Annotated[bool, option("Print a table in CSV", "--csv")] = False,
) -> None:
    """Show what differs between runs: settings, config, code, data, environment, metrics, time"""
    call = invocation(ctx)
    if md + csv_ + call.is_json > 1:
        raise UsageError("--md, --csv and --json exclude each other")
    if patch and csv_:
        raise UsageError("--csv has no place for --patch", hint="use --md or --json")
    # Here, since a list of runs reads neither outputs nor manifests.
    from amlctl.cli.render import compared
    from amlctl.operations.compare import compare as compare_runs

    comparison = compare_runs(each_at(call, run), with_patch=patch)
    if csv_:
        text: Iterable[Line | Table] = compared.csv_lines(comparison)
    elif md:
        text = compared.markdown(comparison)
    else:
        text = compared.screen(comparison, call.output.width)
    call.result(comparison.to_json() if call.is_json else None, text)


app.command("plot", epilog=runs_plot.EXAMPLES)(runs_plot.plot)
app.command("report", epilog=runs_report.EXAMPLES)(runs_report.report)
app.command("share", epilog=runs_share.EXAMPLES)(runs_share.share)
app.command("cancel", epilog=cancel.EXAMPLES)(cancel.cancel)


@app.command(
    epilog=examples(
        "amlctl runs wait @last # exit code 0 if it Completed, else 1",
        "amlctl runs wait @2 @last && amlctl submit report.py",
    )
)
def wait(
    ctx: typer.Context,
    run: Annotated[list[str], typer.Argument(metavar="RUN...", help="One or more runs")],
) -> int:
    """Wait until runs have finished; the exit code says whether all of them Completed"""
    from amlctl.operations.waiting import wait_for

    call = invocation(ctx)
    waited = wait_for(runs_at(call, run))
    call.result(
        waited.to_json(), [["run ", highlight(one.run), "  ", state_cell(one.status)] for one in waited.records]
    )
    return 0 if waited.failure is None else waited.failure.exit_code


@app.command("open", epilog=examples("amlctl runs open # in the browser, or the folder of its outputs"))
def open_(ctx: typer.Context, run: LastRun = LAST) -> None:
    """Open a run's page in Studio, or the folder of its fetched outputs, and print the address"""
    from amlctl.operations import runs as operations

    call = invocation(ctx)
    run_id, app_ = call.find_run(run)
    address = operations.open_run(app_, run_id)
    if call.output.out_is_terminal and not call.is_json:
        open_in_desktop(address)
    target = address if address.startswith(("https://", "http://")) else Path(address)
    call.result({"run": run_id, "place": address}, [[linked(address, target)]])


@app.command(epilog=examples("amlctl runs delete @last --yes # without confirmation"))
def delete(
    ctx: typer.Context,
    run: Annotated[list[str], typer.Argument(metavar="RUN...", help="Finished runs")],
    yes: Yes = False,
) -> int:
    """Delete finished runs: record, logs and stored outputs; what was fetched stays"""
    from amlctl.operations import runs as operations

    call = invocation(ctx)
    workspaces: dict[str, Workspace] = {}
    for one in run:
        run_id, app_ = call.find_run(one)
        workspaces.setdefault(run_id, app_.workspace)
    workspaces = operations.with_children(workspaces)
    found = list(workspaces)
    if not yes:
        if not call.output.can_ask:
            raise UsageError(
                "cannot ask for confirmation without a terminal", hint=Command("runs", "delete", *found, "--yes")
            )
        what = count(len(found), "run") if found[1:] else found[0]
        if not confirm(f"Delete {what}: record, logs and stored outputs?", call.output, found if found[1:] else ()):
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


def named_values(values: Mapping[str, str]) -> str:
    return "\n".join(f"{name} {value}" for name, value in values.items())


def variable_values(variables: Mapping[str, str | None]) -> str:
    """The variables, secrets hidden."""
    return named_values({name: "(secret)" if value is None else value for name, value in variables.items()})


_NAME_CELLS = len("distribution") + 2
"""What the names of fields take at most."""


def _details(view: operations.RunView, root: Path, width: int) -> Iterator[Line]:
    from amlctl.cli.render.run_lines import phases_text, resources_text
    from amlctl.core.sweep import label

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
            ("user", f"{record.user}@{record.host}" if record.user and record.host else record.user or record.host),
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
    from amlctl.cli.render.compared import value_text

    return [f"{name} = {value_text(value)}" for name, value in values.items()]


def _metrics(metrics: Metrics) -> list[str]:
    """The last values, and what else `metrics.json` says."""
    from amlctl.core.metrics import as_json

    others = {name: value for name, value in metrics.document.items() if name not in metrics.last}
    return [*(f"{name} = {as_json(value)}" for name, value in metrics.last.items()), *_values(others)]
