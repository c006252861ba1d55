"""`amlctl status`."""

from __future__ import annotations

from typing import Annotated

import typer

from amlctl.cli.completion import complete_dataset
from amlctl.cli.invocation import invocation
from amlctl.cli.render.text import data
from amlctl.operations.status import status as operation
from amlctl.operations.sync_result import SyncOptions

app = typer.Typer(add_completion=False)

_EXAMPLES = """\
Examples:

  amlctl status                      every dataset that was synced from here
  amlctl status data_blobs/working/image

Exit code 0 also when there are changes.
"""


@app.command(epilog=_EXAMPLES)
def status(
    ctx: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATH...", autocompletion=complete_dataset, help="Files or folders under data_blobs/."),
    ] = None,
) -> None:
    """Show what a sync would do: new, modified, deleted files, and whether the store moved on."""
    call = invocation(ctx)
    project, settings = call.app.project, call.app.settings.sync
    datasets = list(dict.fromkeys(project.dataset_name(path, call.cwd) for path in paths or ()))
    options = SyncOptions(settings.layout, settings.pack_below, settings.pack_size, tuple(settings.ignore))
    found = operation(project, call.app.store, datasets, options, call.reporter)
    call.result(
        {"datasets": [one.to_json() for one in found]},
        lambda style, width: data.status_lines(found, style, is_verbose=call.options.is_verbose),
    )
