"""`amlctl doctor`."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Annotated

import typer

from amlctl.cli.invocation import Invocation, invocation
from amlctl.cli.render.text import places
from amlctl.core.message import Command
from amlctl.errors import UsageError
from amlctl.operations.doctor import run_checks
from amlctl.wiring import locate_project

app = typer.Typer(add_completion=False)

_EXAMPLES = """\
Examples:

  amlctl doctor
  amlctl doctor --probe
  amlctl doctor --probe --compute gpu

Exit code 1 if a check fails.
"""


@app.command(epilog=_EXAMPLES)
def doctor(
    ctx: typer.Context,
    is_probing: Annotated[
        bool,
        typer.Option(
            "--probe", help="Create, read, change and remove one of each thing; prints a table for an issue report."
        ),
    ] = False,
    compute: Annotated[
        str | None, typer.Option(metavar="NAME", help="With --probe: the compute target of its one-minute job.")
    ] = None,
) -> int:
    """Check tools, rights, store, folders and clock. Each finding says what mends it."""
    call = invocation(ctx)
    if is_probing:
        return _probe(call, compute)
    if compute is not None:
        raise UsageError("--compute goes with --probe", hint=Command("doctor", "--probe", "--compute", compute))
    checks = run_checks(
        lambda: locate_project(call.cwd, os.environ, project=call.options.project),
        lambda: call.app.settings,
        lambda: call.app.store,
        lambda: call.app.workspace,
    )
    in_words = call.output.commands.in_words
    checks = [replace(check, message=in_words(check.message), hint=in_words(check.hint)) for check in checks]
    call.result(
        {"checks": [check.to_json() for check in checks]},
        lambda style, width: places.doctor_lines(checks, style, width),
    )
    return 0 if all(check.ok for check in checks) else 1


def _probe(call: Invocation, compute: str | None) -> int:
    from amlctl.operations.compute import default_target
    from amlctl.operations.probe import probe

    app_ = call.app
    target = compute or default_target(app_.settings, app_.settings.workspace().name)
    result = probe(app_, target)
    call.result(result.to_json(), lambda style, width: places.probe_lines(result))
    return 0 if result.ok else 1
