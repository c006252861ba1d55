"""`amlctl status`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from amlctl.cli.command_group import TyperApp, examples
from amlctl.cli.invocation import each_dataset, invocation
from amlctl.cli.parameters import Paths
from amlctl.cli.render.tables import Cell, Line, bad, beginning, dim, good, highlight, warning
from amlctl.core.message import Command, Message, below_data_blobs

if TYPE_CHECKING:
    from amlctl.operations.status import DatasetStatus

app = TyperApp()

_EXAMPLES = examples(
    "amlctl status # every known dataset",
    "amlctl status data_blobs/working/image # one dataset",
    note="The exit code is 0 even if there are changes.",
)

MAX_PATHS = 20
"""Paths of one kind that are listed; `-v` and `--json` list all."""


@app.command(epilog=_EXAMPLES)
def status(ctx: typer.Context, paths: Annotated[list[str] | None, Paths] = None) -> int:
    """Show what a sync would change: new, modified and deleted files, and whether the store has newer data"""
    from amlctl.operations.status import all_datasets
    from amlctl.operations.status import status as operation
    from amlctl.operations.sync.result import SyncOptions

    call = invocation(ctx)
    app_ = call.app
    project = app_.project
    if paths:
        datasets = dict.fromkeys(project.dataset_name(path, call.cwd) for path in paths)
    else:
        datasets = {**all_datasets(app_)}
    options = SyncOptions.of(app_.settings.sync)

    def act(dataset: str) -> DatasetStatus:
        return operation(app_, dataset, options, head=datasets[dataset])

    outcomes = each_dataset([*datasets], act)
    call.result(
        {"datasets": [one.to_json() for one in outcomes.results], **outcomes.to_json(call)},
        _lines(outcomes.results, is_verbose=call.options.is_verbose)
        if datasets
        else [Message("No datasets found: ", Command("sync", "PATH"))],
    )
    return outcomes.show_failures(call)


def _lines(statuses: Sequence[DatasetStatus], *, is_verbose: bool) -> Iterator[Line]:
    """Changed paths by dataset, as `git status` shows them."""
    for status in statuses:
        counts = (("new", len(status.new)), ("modified", len(status.modified)), ("deleted", len(status.deleted)))
        changes = ", ".join(f"{number:,} {word}" for word, number in counts if number)
        path = below_data_blobs(status.dataset)
        line: list[Cell] = [highlight(status.dataset), "  "]
        if not status.here:
            continue
        if status.removed:
            yield [*line, warning("removed from the store"), f"  {changes}" if changes else ""]
            yield Message("  bring it back with: ", Command("dataset", "restore", status.dataset))
        elif status.store_gone:
            yield [*line, changes or good("no changes"), warning(" since the last sync; the store is gone")]
        elif status.snapshot is None:
            yield [*line, warning("not in the store yet"), f"  {changes}" if changes else ""]
        else:
            yield [*line, changes or (warning("newer in the store") if status.remote_moved else good("up to date"))]
        if status.remote_moved:
            pull = Command("sync", "--pull", path)
            yield Message("  the store has newer data: merge with ", Command("sync", path), ", download with ", pull)
        for word, changed, style in (
            ("new", status.new, good),
            ("modified", status.modified, warning),
            ("deleted", status.deleted, bad),
        ):
            lines: list[Line] = [["  ", style(f"{word:<9}"), f" {one}"] for one in changed]
            yield from beginning(lines, MAX_PATHS, is_verbose=is_verbose, indent=f"  {word:<9} ")
    elsewhere = [status.dataset for status in statuses if not status.here]
    absent: list[Line] = [[highlight(one), "  ", dim("not on this machine")] for one in elsewhere]
    yield from beginning(absent, MAX_PATHS, is_verbose=is_verbose, indent="")
    if elsewhere:
        path = below_data_blobs(elsewhere[0]) if len(elsewhere) == 1 else "PATH"
        yield Message("  download with: ", Command("sync", "--pull", path))
