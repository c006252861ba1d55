"""A compute target that is not there: the error names those that are."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from contextlib import suppress

from amlctl.errors import AmlctlError, NotFound
from amlctl.workspaces.contract import ManagesCompute, PresentTarget, Workspace


def not_found(name: str, places: str, names: Iterable[str]) -> NotFound:
    near = difflib.get_close_matches(name, names, n=1)
    shown = ", ".join(sorted(names)) or "none"
    return NotFound(
        f"compute target {name!r} is not in {places}",
        hint=f"did you mean {near[0]}?" if near else f"available: {shown}",
    )


def present_or_not_found(workspace: Workspace, name: str, ask: Callable[[], PresentTarget | None]) -> PresentTarget:
    """Raises NotFound, which names the targets that the workspace has."""
    try:
        found = ask()
    except NotFound:
        found = None
    if found is None:
        raise not_found(name, f"workspace {workspace.name}", names_there(workspace))
    return found


def names_there(workspace: Workspace) -> set[str]:
    """For a hint: a workspace that does not answer has said so already, or will."""
    found: set[str] = set()
    with suppress(AmlctlError):
        if isinstance(workspace, ManagesCompute):
            found.update(one.target.name for one in workspace.computes.list())
    return found
