"""`amlctl runs report`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from amlctl.cli.command_group import examples, option
from amlctl.cli.commands.runs_plot import Runs, each_at
from amlctl.cli.invocation import invocation
from amlctl.cli.render.tables import linked
from amlctl.core.message import size
from amlctl.errors import UsageError

EXAMPLES = examples(
    "amlctl runs report # the newest run",
    "amlctl runs report @2 @last -o compared.html # two runs on one page",
)
_FILE_MODE = 0o644
"""A page is made to be given to others."""


def report(
    ctx: typer.Context,
    run: Runs = None,
    output: Annotated[
        Path | None,
        option(
            "Write to this file; default: outputs/RUN-report.html", "--output", "-o", metavar="FILE", dir_okay=False
        ),
    ] = None,
) -> None:
    """Write one HTML page about runs: phases, metrics, pictures, settings, log"""
    # Here, since a list of runs does not need these.
    from amlctl.cli.render.report.page import page
    from amlctl.localfs.atomic import write_bytes
    from amlctl.localfs.disk_errors import disk_error
    from amlctl.operations.report import report as collected

    call = invocation(ctx)
    found = collected(each_at(call, run))
    data = page(found, datetime.now(UTC)).encode("utf-8", "replace")
    more = f"-and-{len(found.runs) - 1}-more" if len(found.runs) > 1 else ""
    name = f"{found.runs[0].record.run}{more}-report.html"
    path = call.cwd / output if output is not None else call.app.project.outputs_dir / name
    try:
        if path.is_file() or not path.exists():
            write_bytes(path.resolve(), data, mode=_FILE_MODE)
        else:  # a device or a pipe must not be replaced
            path.write_bytes(data)
    except IsADirectoryError as error:
        raise UsageError(f"{path} is a folder", hint="name a file") from error
    except OSError as error:
        raise disk_error(error, str(path)) or UsageError(f"cannot write {path}: {error.strerror}") from error
    shown = path.relative_to(call.cwd) if path.is_relative_to(call.cwd) else path
    call.result(
        {"runs": [one.record.run for one in found.runs], "file": str(path), "bytes": len(data)},
        [[linked(str(shown), path.absolute()), f"  ({size(len(data))})"]],
    )
