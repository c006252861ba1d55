"""`amlctl why`."""

from __future__ import annotations

from typing import Annotated

import typer

from amlctl.cli.invocation import invocation
from amlctl.cli.render.text import data
from amlctl.operations.why import why as operation

app = typer.Typer(add_completion=False)

_EXAMPLES = """\
Examples:

  amlctl why data_blobs/working/image/0001.png
  amlctl why pipeline/notes.txt
"""


@app.command(epilog=_EXAMPLES)
def why(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="A path under data_blobs/ or pipeline/.")],
) -> None:
    """Explain a path: is it ignored, by which rule of which file; which dataset and pack hold it."""
    call = invocation(ctx)
    app_ = call.app
    absolute = app_.project.typed_path(path, call.cwd)
    found = operation(app_, absolute)
    call.result(found.to_json(), lambda style, width: data.why_lines(found, style))
