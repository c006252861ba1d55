"""A run's log as one text."""

from __future__ import annotations

from amlctl.operations.logs import log_pieces
from amlctl.workspaces.contract import Workspace


def read_log_text(workspace: Workspace, run: str, *, tail: int | None = None, name: str | None = None) -> str:
    return "".join(log_pieces(workspace, run, tail=tail, name=name))
