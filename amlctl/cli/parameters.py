"""Arguments and options that several commands have. What a shell completes for them goes by their metavars."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from amlctl.cli.command_group import option
from amlctl.cli.invocation import Invocation
from amlctl.errors import IntegrityError

if TYPE_CHECKING:
    from amlctl.stores.contract import Store
    from amlctl.wiring import App

LAST = "@last"
"""RUN where none is named."""

LastRun = Annotated[str, typer.Argument(metavar="RUN", help="Run id, unique prefix, or @2 (second to last)")]
"""Of a command that takes the newest run without one; its default is `LAST`."""

Paths = typer.Argument(metavar="PATH...", help="Files or folders under data_blobs/, or names of datasets")
"""Datasets, where paths are typed."""

Yes = Annotated[bool, option("Skip the confirmation", "--yes", "-y")]

Url = Annotated[str | None, option("Use this store instead of the workspace's", "--store", metavar="URL")]


def open_store(call: Invocation, url: str | None) -> Store:
    """The store at the URL, or that of the workspace in use. Raises NotFound, SettingsError (another format)."""
    from amlctl.snapshots.store_format import require_format

    store = at_store(call, url).store
    require_format(store)
    return store


def with_datasets(call: Invocation, url: str | None) -> App:
    """With that store in use; only one that was named has to exist."""
    from amlctl.snapshots.store_format import require_format

    app = at_store(call, url)
    if url is not None:
        with suppress(IntegrityError):  # what it does have is shown
            require_format(app.store)
    return app


def at_store(call: Invocation, url: str | None) -> App:
    """With that store in use, whatever is there."""
    call.output.commands.store_url = url
    return call.app if url is None else call.app.with_store(call.app.open_store(url))
