"""Arguments and options that several commands have. What a shell completes for them goes by their metavars."""

from __future__ import annotations

from typing import Annotated

import typer

from amlctl.cli.command_group import option

LAST = "@last"
"""RUN where none is named."""

LastRun = Annotated[str, typer.Argument(metavar="RUN", help="Run id, unique prefix, or @2 (second to last)")]
"""Of a command that takes the newest run without one; its default is `LAST`."""

Paths = typer.Argument(metavar="PATH...", help="Files or folders under data_blobs/, or names of datasets")
"""Datasets, where paths are typed."""

Yes = Annotated[bool, option("Skip the confirmation", "--yes", "-y")]
