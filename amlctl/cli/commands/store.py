"""`amlctl store …`."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

import typer

from amlctl.cli.invocation import Invocation, invocation
from amlctl.cli.lazy import CommandGroup
from amlctl.cli.render.text import places
from amlctl.errors import IntegrityError
from amlctl.operations.store.gc import gc as gc_operation
from amlctl.operations.store.stats import stats as stats_operation
from amlctl.operations.store.verify import verify as verify_operation
from amlctl.snapshots.store_format import require_format
from amlctl.stores.contract import Store
from amlctl.wiring import without_copies

app = typer.Typer(
    add_completion=False,
    cls=CommandGroup,
    invoke_without_command=True,
    help="Show what the store holds, clean it up, check it.",
    epilog="Examples:\n\n  amlctl store stats\n  amlctl store gc\n  amlctl store verify",
)
app.callback()(lambda: None)

Url = Annotated[str | None, typer.Option("--store", metavar="URL", help="Another store than the workspace's.")]


@app.command(epilog="Examples:\n\n  amlctl store stats --json")
def stats(ctx: typer.Context, store_url: Url = None) -> None:
    """Show datasets, snapshots and sizes."""
    call = invocation(ctx)
    found = stats_operation(_store(call, store_url))
    call.result(found.to_json(), lambda style, width: places.stats_lines(found, style, width))


@app.command(epilog="Examples:\n\n  amlctl store gc\n  amlctl store gc --yes")
def gc(
    ctx: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete, instead of only listing.")] = False,
    store_url: Url = None,
) -> None:
    """List what nothing needs any more; delete it with --yes.

    Kept are the newest ten snapshots of each dataset, what existing runs name, and all that is younger than a day.
    """
    call = invocation(ctx)
    result = gc_operation(_store(call, store_url), delete=yes, now=datetime.now(UTC), sink=call.reporter)
    call.result(result.to_json(), lambda style, width: places.gc_lines(result, is_verbose=call.options.is_verbose))


@app.command(epilog="Examples:\n\n  amlctl store verify")
def verify(ctx: typer.Context, store_url: Url = None) -> int:
    """Read back everything that the newest snapshots name. Exit code 1 if something is damaged or missing."""
    call = invocation(ctx)
    store = _opened(call, store_url)
    with suppress(IntegrityError):  # a damage like any other
        require_format(store)
    result = verify_operation(without_copies(store), call.reporter)
    call.result(result.to_json(), lambda style, width: places.verify_lines(result, style))
    return 1 if result.damaged else 0


def _store(call: Invocation, url: str | None) -> Store:
    store = _opened(call, url)
    require_format(store)
    return store


def _opened(call: Invocation, url: str | None) -> Store:
    call.output.commands.store_url = url
    return call.app.store if url is None else call.app.open_store(url)
