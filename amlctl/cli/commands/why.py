"""`amlctl why`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from amlctl.cli.command_group import TyperApp, examples
from amlctl.cli.invocation import invocation
from amlctl.cli.render.tables import Line, fields, good, highlight, warning

if TYPE_CHECKING:
    from amlctl.operations.why import Why

app = TyperApp()

_EXAMPLES = examples(
    "amlctl why data_blobs/working/image/0001.png # dataset, snapshot and pack",
    "amlctl why pipeline/notes.txt # is it in the code snapshot?",
)

_STATES = {
    "synced": "same as in the store",
    "new": "not in the store",
    "modified": "differs from the store",
    "deleted": "in the store, not on this machine",
}


@app.command(epilog=_EXAMPLES)
def why(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="Path under data_blobs/ or pipeline/")],
) -> None:
    """Explain a path: whether it is ignored, by which rule of which file, and which dataset and pack contain it"""
    from amlctl.operations.why import why as operation

    call = invocation(ctx)
    app_ = call.app
    absolute = app_.project.typed_path(path, call.cwd)
    found = operation(app_, absolute)
    call.result(found.to_json(), _lines(found))


def _lines(why: Why) -> Iterator[Line]:
    if why.rule is None:
        rule = "no rule matches"
    else:
        rule = f"{why.rule}  ({f'{why.rule_file}:{why.rule_line}' if why.rule_line else why.rule_file})"
    verdict = warning("ignored") if why.is_ignored else good("not ignored")
    yield [highlight(why.path), "  ", verdict, f"  {_STATES[why.state]}" if why.state else ""]
    yield from fields(
        [
            ("rule", rule),
            ("dataset", why.dataset or ""),
            ("snapshot", why.snapshot or ""),
            ("content id", why.content_id or ""),
            ("stored in", why.place or ""),
        ],
        indent="  ",
    )
