"""`amlctl doctor`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from amlctl.cli.command_group import TyperApp, examples, option
from amlctl.cli.invocation import Invocation, invocation
from amlctl.cli.render.tables import Cell, Column, Line, Table, bad, good
from amlctl.core.message import Command
from amlctl.errors import UsageError

if TYPE_CHECKING:
    from amlctl.operations.probe import ProbeResult
    from amlctl.workspaces.contract import Check

app = TyperApp()

_EXAMPLES = examples(
    "amlctl doctor # check everything, change nothing",
    "amlctl doctor --probe # test every service",
    "amlctl doctor --probe --compute gpu # with a one-minute job on gpu",
    note="The exit code is 1 if a check fails.",
)

_PROBE = "Probe"


@app.command(epilog=_EXAMPLES)
def doctor(
    ctx: typer.Context,
    is_probing: Annotated[
        bool,
        option(
            "Create, read, change and remove one of each thing, and print a table for an issue report",
            "--probe",
            panel=_PROBE,
        ),
    ] = False,
    compute: Annotated[
        str | None, option("Run the one-minute job of --probe on this compute target", panel=_PROBE, metavar="NAME")
    ] = None,
) -> int:
    """Check tools, login, permissions, store, folders and clock, with a suggested fix for each problem"""
    from amlctl.operations.doctor import run_checks
    from amlctl.wiring import locate_project

    call = invocation(ctx)
    if is_probing:
        return _probe(call, compute)
    if compute is not None:
        raise UsageError("--compute requires --probe", hint=Command("doctor", "--probe", "--compute", compute))
    checks = run_checks(
        lambda: locate_project(call.cwd, os.environ, project=call.options.project),
        lambda: call.app,
    )
    in_words = call.output.commands.in_words
    checks = [replace(check, message=in_words(check.message), hint=in_words(check.hint)) for check in checks]
    call.result({"checks": [check.to_json() for check in checks]}, [_table(checks)])
    return 0 if all(check.ok for check in checks) else 1


def _probe(call: Invocation, compute: str | None) -> int:
    from amlctl.operations.compute import default_target
    from amlctl.operations.probe import probe

    app_ = call.app
    target = compute or default_target(app_.settings, app_.settings.workspace().name)
    result = probe(app_, target)
    call.result(result.to_json(), _probe_lines(result))
    return 0 if result.ok else 1


def _table(checks: Sequence[Check]) -> Table:
    """A row for each check, and below a failed one the hint."""
    rows: list[list[Cell]] = []
    for check in checks:
        rows.append([good("ok") if check.ok else bad("FAILED"), check.name, check.message])
        if check.hint:
            rows.append(["", "", f"hint: {check.hint}"])
    return Table([Column(is_whole=True), Column(is_whole=True), Column(is_wrapped=True)], rows)


def _probe_lines(result: ProbeResult) -> Iterator[Line]:
    """A table in Markdown, which an issue shows as one; without color, since it is copied."""
    yield ", ".join(f"{name} {version}" for name, version in result.versions.items())
    yield from ("", "| step | result | s | observed |", "| --- | --- | ---: | --- |")
    for step in result.steps:
        message = " ".join(step.message.split()).replace("|", "\\|")
        yield f"| {step.name} | {'ok' if step.ok else 'FAILED'} | {step.seconds:.2f} | {message} |"
