"""`amlctl init`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amlctl.cli.command_group import TyperApp, examples
from amlctl.cli.invocation import invocation
from amlctl.cli.render.tables import Line, dim, good, warning
from amlctl.core.message import Command, Message

if TYPE_CHECKING:
    from amlctl.operations.init import InitResult

app = TyperApp()

_EXAMPLES = examples(
    "amlctl init # in the current folder",
    "amlctl init ~/screens # in another one, created if needed",
)


@app.command(epilog=_EXAMPLES)
def init(
    ctx: typer.Context,
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Folder of the project; created if needed")
    ] = None,
) -> None:
    """Set up a project: settings, folders, file_paths.py, a starter pptdaml.yaml; never overwrites a file"""
    from amlctl.operations.init import init as operation

    call = invocation(ctx)
    target = folder if folder is not None else call.options.project
    result = operation(call.cwd / target if target is not None else call.cwd)
    call.result(result.to_json(), _lines(result))


def _lines(result: InitResult) -> Iterator[Line]:
    for path in result.created:
        yield [good("created"), f"  {path}"]
    for path in result.kept:
        yield [dim("kept"), f"     {path}"]
    if result.packages_from:
        yield f"pptdaml.yaml has the packages of {result.packages_from}"
    if result.unignored:
        yield f"Data and outputs do not belong in Git. Add to .gitignore: {' '.join(result.unignored)}"
    if result.outdated:
        yield [warning("These lines are of the first amlctl and no longer work:")]
    for one in result.outdated:
        yield f"  {one.file}:{one.line}: {one.found}; instead: {one.instead}"
    yield Message("Put a script into pipeline/, then: ", Command("submit", "SCRIPT"))
