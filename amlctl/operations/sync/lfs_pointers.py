"""Small files that stand for data which Git LFS has not downloaded: synced as they are, they are not the data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from amlctl.core.diff import Changes
from amlctl.core.events import EventSink, Warned
from amlctl.core.manifest import FileEntry
from amlctl.core.message import count
from amlctl.localfs.regular_file import open_regular

_BEGINNING = b"version https://git-lfs.github.com/spec/v1\n"
_SIZES = range(126, 142)
"""Bytes, by the number of digits of the data's size (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md)."""
_MOST = 100
"""Files that are looked at: where one is a pointer, most are."""


def warn_of_pointers(dataset: str, root: Path, local: Sequence[FileEntry], changes: Changes, sink: EventSink) -> None:
    """Of the files that are new or modified."""
    candidates = [entry.path for entry in local if entry.size_bytes in _SIZES]
    if not candidates:
        return
    changed = {*changes.added, *changes.modified}
    looked_at = [path for path in candidates if path in changed][:_MOST]
    pointers = [path for path in looked_at if _is_pointer(root / path)]
    if pointers:
        files = count(len(pointers), "file") + (" or more" if len(looked_at) == _MOST else "")
        what = f"{files} of {dataset}: pointers of Git LFS instead of the data, such as {pointers[0]}"
        sink(Warned(f"{what}; to download it: git lfs pull"))


def _is_pointer(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(len(_BEGINNING)) == _BEGINNING
    except OSError:
        return False
