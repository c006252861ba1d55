"""Deletions that are more likely a slip than an intention are confirmed first.

An unmounted disk leaves an empty folder, and a new ignore rule hides files: a sync would delete them from the store,
and the next pull of each team mate from their folders.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

from amlctl.core.manifest import FileEntry
from amlctl.core.message import Command, Message
from amlctl.core.wording import count
from amlctl.errors import NeedsConfirmation

_path_of = itemgetter(0)
_SHARE = 0.5
_MANY = 10


def confirm_deletions(
    before: Sequence[FileEntry], after: Sequence[FileEntry], *, where: str, command: Command, is_sure: bool
) -> None:
    """`where` they would go from, in words. A file that is still there under another name does not go.

    Raises NeedsConfirmation where more than half of the files, and more than ten, would go.
    """
    if is_sure or len(before) <= _MANY or before is after:
        return
    # Sets of plain strings: this runs in each sync that changes something, over all files.
    gone = set(map(_path_of, before)).difference(map(_path_of, after))
    if len(gone) <= _MANY:
        return
    files = [entry for entry in before if not entry.path.endswith("/")]
    kept_contents = {entry.content_id for entry in after}
    lost = [entry.path for entry in files if entry.path in gone and entry.content_id not in kept_contents]
    if len(lost) > max(_MANY, _SHARE * len(files)):
        raise NeedsConfirmation(
            f"{count(len(lost), 'file')} of {len(files)} would be deleted {where}",
            hint=Message("if that is intended: ", Command(*command.words, "--yes")),
            details=lost,
        )
