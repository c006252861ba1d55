"""`amlctl init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from amlctl.cli.invocation import invocation
from amlctl.cli.render.text import places
from amlctl.operations.init import init as operation

app = typer.Typer(add_completion=False)

_EXAMPLES = """\
Examples:

  amlctl init                  in the folder that is to be the project
  amlctl init ~/screens        in another one, which is made if need be
"""


@app.command(epilog=_EXAMPLES)
def init(
    ctx: typer.Context,
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="The project's folder; made if need be.")] = None,
) -> None:
    """Make a folder a project: settings, folders, file_paths.py, a starter pptdaml.yaml. Nothing is overwritten."""
    call = invocation(ctx)
    place = folder if folder is not None else call.options.project
    result = operation(call.cwd / place if place is not None else call.cwd)
    call.result(
        {"created": list(result.created), "kept": list(result.kept)},
        lambda style, width: places.init_lines(result, style),
    )
