"""Results of `sync`, `status` and `why` as lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from amlctl.cli.render.quantities import duration, size
from amlctl.cli.render.style import Style
from amlctl.cli.render.tables import fields, printable
from amlctl.core.message import Command, Message
from amlctl.core.wording import below_data_blobs, count

if TYPE_CHECKING:
    from amlctl.operations.status import DatasetStatus
    from amlctl.operations.sync.result import SyncResult
    from amlctl.operations.why import Why

ID_CELLS = 12
"""Digits of an id that are shown; any unique beginning of one may be typed."""

MAX_PATHS = 20
"""Paths of one kind that `status` lists; `-v` and `--json` list all."""


def sync_lines(result: SyncResult, style: Style, *, is_pull: bool) -> list[str]:
    """A dataset's line, then what changed and what travelled, where there is something to say."""
    snapshot = result.snapshot[:ID_CELLS]
    counts = (("added", result.added), ("modified", result.modified), ("deleted", result.deleted))
    changes = ", ".join(f"{number:,} {word}" for word, number in counts if number)
    name = style.name(printable(result.dataset))
    if result.dry_run:
        state = style.warning("would change") if changes else style.good("up to date")
    else:
        state = style.good("pulled" if is_pull else "synced") if changes else style.good("up to date")
    if result.not_here:
        state = style.warning(f"{count(result.not_here, 'file')} of the store not here yet")
    total = f"{count(result.files, 'file')}, {size(result.bytes)}"
    lines = [f"{name}  {state}  {total}  snapshot {snapshot}"]
    if changes:
        lines.append(f"  {changes}, {result.unchanged:,} unchanged")
    travelled = _travelled(result)
    if travelled:
        lines.append(f"  {travelled}")
    return lines


def _travelled(result: SyncResult) -> str:
    would = "would be " if result.dry_run else ""
    parts = []
    if result.uploaded_bytes:
        blobs = f" in {count(result.uploaded_blobs, 'blob')}" if result.uploaded_blobs else ""
        parts.append(f"{size(result.uploaded_bytes)} {would}sent{blobs}")
    if result.downloaded_files:
        parts.append(f"{count(result.downloaded_files, 'file')} ({size(result.downloaded_bytes)}) {would}received")
    if parts and not result.dry_run:
        parts.append(f"in {duration(result.seconds)}")
    return ", ".join(parts[:-1]) + (" " if parts[1:] else "") + parts[-1] if parts else ""


def status_lines(statuses: Sequence[DatasetStatus], style: Style, *, is_verbose: bool) -> list[str]:
    """Changed paths by dataset, as `git status` shows them."""
    lines: list[str] = []
    for status in statuses:
        counts = (("new", len(status.new)), ("modified", len(status.modified)), ("deleted", len(status.deleted)))
        changes = ", ".join(f"{number:,} {word}" for word, number in counts if number)
        told = changes or ("" if status.remote_moved else style.good("up to date"))
        if status.snapshot is None:
            told = style.warning("not in the store yet") + (f"  {changes}" if changes else "")
        if not status.here:
            told = style.warning("not on this machine")
        lines.append(f"{style.name(printable(status.dataset))}  {told}".rstrip())
        if not status.here:
            pull = Command("sync", "--pull", below_data_blobs(status.dataset))
            lines.append(Message("  ", pull, " brings it here"))
        elif status.remote_moved:
            path = below_data_blobs(status.dataset)
            merge, pull = Command("sync", path), Command("sync", "--pull", path)
            lines.append(Message("  the store has moved on: ", merge, " merges, ", pull, " brings it here"))
        for word, paths, paint in (
            ("new", status.new, style.good),
            ("modified", status.modified, style.warning),
            ("deleted", status.deleted, style.bad),
        ):
            shown = paths if is_verbose else paths[:MAX_PATHS]
            lines += [f"  {paint(f'{word:<9}')} {printable(path)}" for path in shown]
            if len(shown) < len(paths):
                lines.append(style.dim(f"  {word:<9} … and {len(paths) - len(shown):,} more (-v shows all)"))
    return lines


_STATES = {
    "synced": "as it is in the store",
    "new": "not in the store",
    "modified": "differs from the store's",
    "deleted": "not on this machine, but in the store",
}


def why_lines(why: Why, style: Style) -> list[str]:
    """Ignored or not, by which rule, and where the bytes are."""
    if why.rule is None:
        rule = "no rule matches"
    else:
        place = f"{why.rule_file}:{why.rule_line}" if why.rule_line else why.rule_file
        rule = f"{why.rule}  ({place})"
    verdict = style.warning("ignored") if why.is_ignored else style.good("not ignored")
    state = f"  {_STATES[why.state]}" if why.state else ""
    return [
        f"{style.name(printable(why.path))}  {verdict}{state}",
        *fields(
            [
                ("  rule", rule),
                ("  dataset", why.dataset or ""),
                ("  snapshot", why.snapshot or ""),
                ("  content id", why.content_id or ""),
                ("  stored in", why.place or ""),
            ]
        ),
    ]
