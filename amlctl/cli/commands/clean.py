"""`amlctl clean`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from amlctl.cli.command_group import TyperApp, examples, option
from amlctl.cli.invocation import invocation
from amlctl.cli.parameters import Yes
from amlctl.cli.questions import asking
from amlctl.cli.render.tables import Column, Line, Table, dim, good, number, whole
from amlctl.core.message import ID_CELLS, Command, Message, count, if_intended, size
from amlctl.errors import UsageError

if TYPE_CHECKING:
    from amlctl.localfs.disk_use import DiskItem
    from amlctl.operations.clean import CleanResult

app = TyperApp()

_WHAT = "What to free"
MAX_ITEMS = 5
"""Of one kind, the largest that are listed; `-v` and `--json` list all."""


@app.command(
    epilog=examples(
        "amlctl clean # what takes up space",
        "amlctl clean --outputs --older-than 30d # the store has them",
        "amlctl clean --environments --caches --dry-run # what would go",
    )
)
def clean(
    ctx: typer.Context,
    outputs: Annotated[
        bool, option("Free fetched outputs that are unchanged and in the store", "--outputs", panel=_WHAT)
    ] = False,
    environments: Annotated[
        bool, option("Free environments; the next submit makes them again", "--environments", panel=_WHAT)
    ] = False,
    caches: Annotated[bool, option("Free copies of what stores have", "--caches", panel=_WHAT)] = False,
    logs: Annotated[
        bool, option("Free local logs of finished runs that are in the store", "--logs", panel=_WHAT)
    ] = False,
    older_than: Annotated[
        str | None, option("List or free only what has not been used for this long", "--older-than", metavar="AGE")
    ] = None,
    is_dry_run: Annotated[bool, option("Show what would be freed, and change nothing", "--dry-run")] = False,
    yes: Yes = False,
) -> None:
    """List what takes up space on this machine, and free what the store has too

    Never touches data_blobs/, active runs, or results that are not in the store.
    """
    from amlctl.core.run import parse_duration_s
    from amlctl.localfs.disk_use import CACHES, ENVIRONMENTS, LOGS, OUTPUTS
    from amlctl.operations.clean import clean as operation

    flags = {OUTPUTS: outputs, ENVIRONMENTS: environments, CACHES: caches, LOGS: logs}
    kinds = [kind for kind, is_wanted in flags.items() if is_wanted]
    if not kinds and yes:
        raise UsageError("Missing what to free", hint=f"add one of {', '.join(f'--{kind}' for kind in flags)}")
    call = invocation(ctx)
    unused = timedelta(seconds=0.0 if older_than is None else parse_duration_s(older_than))

    age = () if older_than is None else ("--older-than", older_than)
    hint = if_intended("clean", *(f"--{kind}" for kind in kinds), *age)

    def act(is_sure: bool) -> CleanResult:
        since = datetime.now(UTC) - unused if unused else None
        return operation(call.app, kinds, unused_since=since, hint=hint, is_dry_run=is_dry_run, is_sure=is_sure)

    result = asking(act, is_sure=yes, output=call.output)
    text = _freed(result) if kinds else _list(result, older_than, is_verbose=call.options.is_verbose)
    call.result(result.to_json(), text)


def _freed(result: CleanResult) -> Iterator[Line | Table]:
    what = f"{count(len(result.freed), 'item')}, {size(result.freed_bytes)}"
    if not result.freed:
        yield "nothing to free"
    elif result.dry_run:
        yield _table(result.freed)
        yield f"{what} would be freed"
    else:
        yield [good("freed"), f" {what}"]


def _list(result: CleanResult, older_than: str | None, *, is_verbose: bool) -> Iterator[Line | Table]:
    from amlctl.localfs.disk_use import KINDS

    if not result.items:
        yield "nothing takes up space here" if older_than is None else f"nothing here was unused for {older_than}"
        return
    shown: list[DiskItem] = []
    for kind in KINDS:
        found = [item for item in result.items if item.kind == kind]
        few = found if is_verbose else found[:MAX_ITEMS]
        shown += few
        if rest := found[len(few) :]:
            total = sum(item.bytes for item in rest)
            name = f"… and {len(rest):,} more (-v shows all)"
            shown.append(replace(rest[0], name=name, bytes=total, used_at=0.0, kept=""))
    yield _table(shown)
    yield [
        dim(f"{size(sum(item.bytes for item in result.items))} in total; the store itself: "),
        Command("store", "gc"),
    ]
    freeable = [f"--{kind}" for kind in KINDS if any(item.kind == kind and not item.kept for item in result.items)]
    if freeable:
        age = () if older_than is None else ("--older-than", older_than)
        yield Message("free with: ", Command("clean", *freeable, *age))


def _table(items: Sequence[DiskItem]) -> Table:
    now = datetime.now(UTC).timestamp()
    return Table.of(
        items,
        {
            whole("KIND"): lambda item: item.kind,
            whole("NAME"): _name,
            number("SIZE"): lambda item: size(item.bytes),
            number("UNUSED"): lambda item: _age(now - item.used_at) if item.used_at else "",
            Column("KEPT", rank=1): lambda item: item.kept,
        },
    )


def _name(item: DiskItem) -> str:
    """Of an environment a part is enough, as in `env list`."""
    from amlctl.localfs.disk_use import ENVIRONMENTS

    return item.name[:ID_CELLS] if item.kind == ENVIRONMENTS else item.name


def _age(seconds: float) -> str:
    """`5 min`, `3 h`, `12 d`."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return "now"
