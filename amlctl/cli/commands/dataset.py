"""`amlctl dataset …`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from amlctl.cli.command_group import TyperApp, examples
from amlctl.cli.invocation import each_dataset, invocation
from amlctl.cli.parameters import Url, Yes, with_datasets
from amlctl.cli.questions import asking
from amlctl.cli.render.tables import Column, Line, Table, dim, fields, good, highlight, moment, number, warning, whole
from amlctl.core.message import ID_CELLS, Command, Message, below_data_blobs, count, size, some

if TYPE_CHECKING:
    from amlctl.operations.dataset.listing import DatasetDetails, DatasetList
    from amlctl.operations.dataset.removal import RemovalResult

app = TyperApp(
    help="List, show, remove and restore datasets of the store",
    examples=examples(
        "amlctl dataset list # what the team shares",
        "amlctl dataset show working/image # its snapshots, and who uses them",
        "amlctl dataset remove working # can be undone for 30 days",
    ),
)

Dataset = Annotated[str, typer.Argument(metavar="DATASET", help="Name, or path under data_blobs/")]
Datasets = Annotated[
    list[str],
    typer.Argument(metavar="DATASET...", help="Names, or paths under data_blobs/"),
]


@app.command("list", epilog=examples("amlctl dataset list --json # all snapshots, for a script"))
def list_(ctx: typer.Context, store_url: Url = None) -> None:
    """List the store's datasets: size, snapshots, who wrote them and when"""
    from amlctl.operations.dataset.listing import list_datasets

    call = invocation(ctx)
    found = list_datasets(with_datasets(call, store_url))
    call.result(found.to_json(), _list(found))


@app.command(epilog=examples("amlctl dataset show data_blobs/working/image"))
def show(ctx: typer.Context, dataset: Dataset, store_url: Url = None) -> None:
    """Show a dataset's snapshots, and the runs that use them"""
    from amlctl.operations.dataset.listing import show_stored

    call = invocation(ctx)
    found = show_stored(with_datasets(call, store_url).store, call.app.project.dataset_name(dataset, call.cwd))
    call.result(found.to_json(), _details(found))


@app.command(epilog=examples("amlctl dataset remove working --yes # without confirmation"))
def remove(
    ctx: typer.Context,
    datasets: Datasets,
    yes: Yes = False,
    store_url: Url = None,
) -> int:
    """Remove datasets from the store; what existing runs read is kept

    Files on this machine stay. `dataset restore` brings a dataset back until `store gc` deletes it, which is 30 days
    later at the earliest.
    """
    from amlctl.operations.dataset.removal import remove as remove_operation

    call = invocation(ctx)
    store = with_datasets(call, store_url).store
    names = list(dict.fromkeys(call.app.project.dataset_name(one, call.cwd) for one in datasets))

    def act(dataset: str) -> RemovalResult:
        removal = partial(remove_operation, store, dataset, now=datetime.now(UTC))
        return asking(lambda is_sure: removal(is_sure=is_sure), is_sure=yes, output=call.output)

    outcomes = each_dataset(names, act)
    call.result(
        {"removed": [one.to_json() for one in outcomes.results], **outcomes.to_json(call)},
        [line for one in outcomes.results for line in _removed(one)],
    )
    return outcomes.show_failures(call)


@app.command(epilog=examples("amlctl dataset restore working # undo its removal"))
def restore(ctx: typer.Context, dataset: Dataset, store_url: Url = None) -> None:
    """Bring back a dataset that was removed"""
    from amlctl.operations.dataset.removal import restore as restore_operation

    call = invocation(ctx)
    store, name = with_datasets(call, store_url).store, call.app.project.dataset_name(dataset, call.cwd)
    done = restore_operation(store, name, call.reporter)
    call.result(
        {"restored": done.to_json()},
        [[good("restored"), f" {name}  {count(done.files, 'file')}, {size(done.bytes)}"]],
    )


def _list(found: DatasetList) -> Iterator[Line | Table]:
    if not found.datasets and not found.without_head:
        message = "All datasets of the store are removed" if found.removed else "The store has no datasets yet"
        yield Message(f"{message}: ", Command("sync", "PATH"))
    if found.datasets:
        yield Table.of(
            found.datasets,
            {
                Column("DATASET", is_wrapped=True): lambda one: one.dataset,
                number("FILES"): lambda one: f"{one.files:,}",
                number("SIZE"): lambda one: size(one.bytes),
                Column("SNAPSHOT", rank=3): lambda one: one.snapshot[:ID_CELLS],
                number("SNAPSHOTS", rank=4): lambda one: str(len(one.snapshots)),
                whole("WRITTEN", rank=1): lambda one: moment(one.written_at),
                Column("BY", rank=2): lambda one: one.written_by,
                whole("HERE"): lambda one: "yes" if one.dataset in found.here else "",
            },
        )
    for name in found.without_head:
        yield [highlight(name), "  ", warning("no HEAD"), ": its first sync has not ended, or HEAD was lost"]
        yield Message("  where its files are: ", Command("sync", "--repair", below_data_blobs(name)))
    for gone in found.removed:
        by = f" by {gone.removed_by}" if gone.removed_by else ""
        yield [dim(f"removed{by} {moment(gone.removed_at)}: "), Command("dataset", "restore", gone.dataset)]


def _details(found: DatasetDetails) -> Iterator[Line | Table]:
    yield from fields(
        [
            ("dataset", highlight(found.dataset)),
            ("files", f"{found.files:,}"),
            ("size", size(found.bytes)),
            ("layout", found.layout),
            ("written", " by ".join(filter(None, (moment(found.written_at), found.written_by)))),
            ("produced by", "\n".join(found.produced_by)),
        ]
    )
    yield ""
    yield Table.of(
        found.snapshots,
        {
            whole("SNAPSHOT"): lambda one: one.snapshot[:ID_CELLS],
            whole("WRITTEN"): lambda one: moment(one.written_at),
            Column("BY", rank=1): lambda one: one.written_by,
            number("FILES"): lambda one: f"{one.files:,}",
            number("SIZE"): lambda one: size(one.bytes),
            Column("READ BY"): lambda one: some(one.runs, 1),
        },
    )
    kept = (one.snapshot for one in found.snapshots if one.layout != "mirror")  # which has the newest bytes only
    if older := next((snapshot for snapshot in kept if snapshot != found.snapshot), None):
        pull = Command("sync", "--pull", "--snapshot", older[:ID_CELLS], below_data_blobs(found.dataset))
        yield Message("hint: an older one comes back with ", pull)


def _removed(done: RemovalResult) -> Iterator[Line]:
    yield [good("removed"), f" {done.dataset}  {count(done.files, 'file')}, {size(done.bytes)}"]
    yield Message("  to undo it within 30 days: ", Command("dataset", "restore", done.dataset))
