"""Deletions that are more likely a slip than an intention are confirmed first.

An unmounted disk leaves an empty folder, and a new ignore rule hides files: a sync would delete them from the store,
and the next pull of each team mate from their folders.
"""

from __future__ import annotations

from collections.abc import Sequence

from amlctl.core.manifest import FileEntry
from amlctl.core.message import Command, Message
from amlctl.core.wording import count
from amlctl.errors import NeedsConfirmation

_SHARE = 0.5
_MANY = 10


def confirm_deletions(
    deleted: Sequence[str],
    before: Sequence[FileEntry],
    after: Sequence[FileEntry],
    *,
    where: str,
    command: Command,
    is_sure: bool,
) -> None:
    """`deleted` are the paths of `before` that `after` lacks; `where` says from where they would go. A file that is
    still there under another name does not go.

    Raises NeedsConfirmation where more than half of the files, and more than ten, would go.
    """
    if is_sure or len(deleted) <= _MANY:
        return
    gone = set(deleted)
    files = [entry for entry in before if not entry.path.endswith("/")]
    kept_contents = {entry.content_id for entry in after}
    lost = [entry.path for entry in files if entry.path in gone and entry.content_id not in kept_contents]
    if len(lost) > max(_MANY, _SHARE * len(files)):
        raise NeedsConfirmation(
            f"{count(len(lost), 'file')} of {len(files)} would be deleted {where}",
            hint=Message("if that is intended: ", Command(*command.words, "--yes")),
            details=lost,
        )
