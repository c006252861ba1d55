"""`amlctl runs compare`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from amlctl.cli.command_group import examples, option
from amlctl.cli.commands.runs_plot import each_at
from amlctl.cli.completion import complete_run
from amlctl.cli.invocation import invocation
from amlctl.cli.render.tables import Line, Table
from amlctl.errors import UsageError

EXAMPLES = examples(
    "amlctl runs compare @2 @last # the newest run and the one before",
    "amlctl runs compare @3 @last --patch # with what changed in the code",
    "amlctl runs compare RUN RUN RUN --md # for a pull request",
)


def compare(
    ctx: typer.Context,
    run: Annotated[
        list[str], typer.Argument(metavar="RUN RUN...", autocompletion=complete_run, help="Two or more runs")
    ],
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
