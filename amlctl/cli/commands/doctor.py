"""`amlctl doctor`."""

from __future__ import annotations

import os
from dataclasses import replace

import typer

from amlctl.cli.invocation import invocation
from amlctl.cli.render.text import places
from amlctl.operations.doctor import run_checks
from amlctl.wiring import locate_project

app = typer.Typer(add_completion=False)

_EXAMPLES = """\
Examples:

  amlctl doctor

Exit code 1 if a check fails.
"""


@app.command(epilog=_EXAMPLES)
def doctor(ctx: typer.Context) -> int:
    """Check tools, rights, store, folders and clock. Each finding says what mends it."""
    call = invocation(ctx)
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
