"""`amlctl store …`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from amlctl.cli.command_group import TyperApp, examples, option
from amlctl.cli.invocation import invocation
from amlctl.cli.parameters import Url, at_store, open_store
from amlctl.cli.render.tables import Column, Line, Table, bad, beginning, dim, good, highlight, moment, number, whole
from amlctl.core.message import ID_CELLS, Command, Message, below_data_blobs, count, size

if TYPE_CHECKING:
    from amlctl.operations.dataset.listing import StoredDataset, StoreStats
    from amlctl.operations.store.gc import GcResult
    from amlctl.operations.store.verify import VerifyResult

app = TyperApp(
    help="Show what the store contains, clean it up, verify it",
    examples=examples(
        "amlctl store stats # datasets, snapshots, sizes",
        "amlctl store gc # list unused objects",
        "amlctl store verify # read everything back",
    ),
)

MAX_SNAPSHOTS = 10
"""Older snapshots of a dataset that `store stats` lists."""
MAX_LINES = 20
"""Objects that `store gc` and `store verify` list; `-v` and `--json` list all."""


@app.command(epilog=examples("amlctl store stats --json # all snapshots, for a script"))
def stats(ctx: typer.Context, store_url: Url = None) -> None:
    """Show datasets, snapshots and sizes"""
    from amlctl.operations.dataset.listing import stats as stats_operation

    call = invocation(ctx)
    found = stats_operation(open_store(call, store_url))
    call.result(found.to_json(), _stats(found))


@app.command(
    epilog=examples(
        "amlctl store gc # list only",
        "amlctl store gc --yes # delete",
        "amlctl store gc --keep 3 --older-than 30d --yes # other limits",
    )
)
def gc(
    ctx: typer.Context,
    yes: Annotated[bool, option("Delete instead of listing", "--yes", "-y")] = False,
    keep: Annotated[
        int | None, option("Keep the newest N snapshots of each dataset (default: 10)", min=1, metavar="N")
    ] = None,
    older_than: Annotated[
        str | None,
        option("Delete only what is older (default: 1d; removed datasets 30d)", "--older-than", metavar="AGE"),
    ] = None,
    store_url: Url = None,
) -> None:
    """List what is no longer needed, and delete it with --yes

    Keeps the newest ten snapshots of each dataset, what existing runs reference, everything younger than a day, and
    datasets removed in the last 30 days.
    """
    from amlctl.core.run import parse_duration_s
    from amlctl.operations.store.gc import gc as gc_operation
    from amlctl.operations.store.needed import KeepRules

    call = invocation(ctx)
    rules = KeepRules(datetime.now(UTC))
    if keep is not None:
        rules = replace(rules, snapshots=keep)
    if older_than is not None:
        age_s = parse_duration_s(older_than)
        rules = replace(rules, young_s=age_s, removed_s=age_s)
    result = gc_operation(open_store(call, store_url), rules, delete=yes, sink=call.reporter)
    again = [*(("--keep", str(keep)) if keep else ()), *(("--older-than", older_than) if older_than else ())]
    call.result(result.to_json(), _gc(result, again, is_verbose=call.options.is_verbose))


@app.command(epilog=examples("amlctl store verify # exit code 1 if something is damaged or missing"))
def verify(ctx: typer.Context, store_url: Url = None) -> int:
    """Read back everything that the newest snapshots reference, and compare"""
    from amlctl.operations.store.verify import verify_store

    call = invocation(ctx)
    result = verify_store(at_store(call, store_url))
    call.result(result.to_json(), _verify(result, is_verbose=call.options.is_verbose))
    return 1 if result.damaged else 0


def _stats(stats: StoreStats) -> Iterator[Line | Table]:
    """Datasets at their newest snapshot, then what takes the space."""
    yield ["store ", highlight(stats.store)]
    yield ""
    if stats.datasets:
        yield Table.of(
            stats.datasets,
            {
                Column("DATASET", is_wrapped=True): lambda one: one.dataset,
                whole("SNAPSHOT", rank=2): lambda one: one.snapshot[:ID_CELLS],
                whole("LAYOUT", rank=3): lambda one: one.layout,
                number("FILES"): lambda one: f"{one.files:,}",
                number("SIZE"): lambda one: size(one.bytes),
                whole("WRITTEN", rank=1): lambda one: moment(one.written_at),
            },
        )
        yield ""
        for dataset in stats.datasets:
            yield from _older(dataset)
    rows = [[kind.kind, f"{kind.values:,}", size(kind.bytes)] for kind in stats.kinds]
    objects, total = sum(kind.values for kind in stats.kinds), sum(kind.bytes for kind in stats.kinds)
    yield Table(
        [whole("CONTENTS"), Column("OBJECTS", is_right=True), Column("SIZE", is_right=True)],
        [*rows, ["total", f"{objects:,}", size(total)]],
    )


def _older(dataset: StoredDataset) -> Iterator[Line]:
    """What `sync --pull --snapshot ID` can restore."""
    older = [one for one in dataset.snapshots if one.snapshot != dataset.snapshot]
    if not older:
        return
    yield f"older snapshots of {dataset.dataset}"
    for one in older[:MAX_SNAPSHOTS]:
        yield f"  {one.snapshot[:ID_CELLS]}  {moment(one.written_at)}"
    if len(older) > MAX_SNAPSHOTS:
        yield f"  … and {len(older) - MAX_SNAPSHOTS:,} more (--json lists all)"
    yield ""


def _gc(result: GcResult, options: list[str], *, is_verbose: bool) -> Iterator[Line]:
    if not result.keys:
        yield "nothing to delete: everything is needed or too young"
        return
    what = f"{count(len(result.keys), 'object')}, {size(result.bytes)}"
    if result.is_deleted:
        yield f"deleted {what}"
        return
    yield from beginning([f"  {key}" for key in result.keys], MAX_LINES, is_verbose=is_verbose)
    yield Message(f"{what} would be deleted: ", Command("store", "gc", *options, "--yes"))


def _verify(result: VerifyResult, *, is_verbose: bool) -> Iterator[Line]:
    what = f"{count(result.datasets, 'dataset')}, {count(result.files, 'file')}, {size(result.bytes)}"
    if result.damaged:
        yield [bad("damaged"), f"  {count(len(result.damages), 'object')}; {what} in total"]
        yield from beginning([Message("  ", line) for line in result.damaged], MAX_LINES, is_verbose=is_verbose)
    else:
        yield [good("undamaged"), f"  {what}"]
    if result.unchecked:
        yield [dim(f"not checked, as nothing records their content: {', '.join(result.unchecked)}")]
    if result.to_repair:
        repair = Command("sync", "--repair", *map(below_data_blobs, result.to_repair))
        yield Message("hint: ", repair, ", if a good copy is on this machine")
