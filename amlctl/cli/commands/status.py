"""`amlctl status`."""

from __future__ import annotations

from typing import Annotated

import typer

from amlctl.cli.completion import complete_dataset
from amlctl.cli.invocation import invocation
from amlctl.cli.render.style import Style
from amlctl.cli.render.text import data
from amlctl.cli.several import each_dataset
from amlctl.core.message import Command, Message
from amlctl.operations.status import DatasetStatus, all_datasets
from amlctl.operations.status import status as operation
from amlctl.operations.sync.result import SyncOptions

app = typer.Typer(add_completion=False)

_EXAMPLES = """\
Examples:

  amlctl status                      every dataset that was synced from here, or published by a run
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
) -> int:
    """Show what a sync would do: new, modified, deleted files, and whether the store moved on."""
    call = invocation(ctx)
    app_ = call.app
    project, settings = app_.project, app_.settings.sync
    if paths:
        datasets = list(dict.fromkeys(project.dataset_name(path, call.cwd) for path in paths))
    else:
        datasets = all_datasets(app_)
    options = SyncOptions(settings.layout, settings.pack_below, settings.pack_size, tuple(settings.ignore))

    def act(dataset: str) -> DatasetStatus:
        return operation(app_, dataset, options)

    def lines(style: Style, width: int) -> list[str]:
        if not datasets:
            return [Message("nothing was synced from here, or published by a run, yet: ", Command("sync", "PATH"))]
        return data.status_lines(tried.results, style, is_verbose=call.options.is_verbose)

    tried = each_dataset(datasets, act)
    call.result({"datasets": [one.to_json() for one in tried.results], **tried.to_json(call)}, lines)
    return tried.tell_failures(call)
