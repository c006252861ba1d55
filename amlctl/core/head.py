"""HEAD of a dataset: its latest snapshot, and the commits that led to it.

Written form (format 2, `docs/store-format.md`): one JSON object. `check` is the xxh3-64 of all other members, so that
a damaged HEAD is noticed. Format 1 had `snapshot`, `manifest` and `layout` alone, and stays readable.
"""

from __future__ import annotations

import json
from datetime import datetime
from enum import Enum
from typing import NamedTuple

from amlctl.core.content_id import is_content_id
from amlctl.core.document import Fields, check_of, parse
from amlctl.core.manifest import LAYOUTS_WRITTEN, StoredLayout, repair_command
from amlctl.core.store_keys import folders_of
from amlctl.errors import IntegrityError, SettingsError

FORMAT = 2
REMEMBERED_COMMITS = 16
"""Commits that HEAD lists: a machine that is behind by more of them counts as one that was away for long."""
_COMMIT_DIGITS = 16


class Head(NamedTuple):
    """What HEAD says: the latest snapshot, the file that lists it, and its layout.

    `store_id` is the id of the store (`format.json`); `sequence` counts commits from 1; `gc` is the generation of the
    last gc that has passed, `fences` counts leases of a mirror that were taken over; `before` are the commits before
    this one, newest first. Format 1 lacks these five. A dataset that was removed has no snapshot; its last commit is
    the first of `before`. `version`, which is not written, is the tag that a swap compares; empty where the value is
    missing and is to be made again.
    """

    snapshot: str
    manifest_key: str
    layout: StoredLayout = "pack"
    store_id: str = ""
    sequence: int = 0
    gc: int = 0
    before: tuple[str, ...] = ()
    fences: int = 0
    removed_at: str = ""
    removed_by: str = ""
    version: str = ""

    @property
    def is_fence(self) -> bool:
        """The dataset has no snapshot: a gc has passed before its first commit (`snapshots/gc_mark.py`), or it was
        removed."""
        return not self.manifest_key

    @property
    def commit(self) -> str:
        """Names this commit: a part of its manifest's content id, which no other manifest has."""
        return commit_of(self.manifest_key)

    def after(self, expected: Head) -> Head:
        """This value as the commit that follows `expected`."""
        commits = expected.before if expected.is_fence else (expected.commit, *expected.before)
        before = commits[:REMEMBERED_COMMITS]
        return self._replace(
            store_id=expected.store_id,
            sequence=expected.sequence + 1,
            gc=expected.gc,
            before=before,
            fences=expected.fences,
        )


class Relation(Enum):
    """How a HEAD stands to the one that a machine has seen last."""

    SAME = "same"
    AHEAD = "ahead"
    BEHIND = "behind"
    """An older one: the store was restored from a backup, or is a copy that was left behind."""
    UNRELATED = "unrelated"
    """Neither led to the other: one of two copies of a store that have gone different ways."""


def commit_of(manifest_key: str) -> str:
    return manifest_key.rpartition("-")[2][:_COMMIT_DIGITS]


def relation(seen: Head, now: Head) -> Relation:
    """`now` as seen from `seen`. HEADs of format 1 do not tell, and count as AHEAD."""
    if seen.commit == now.commit:
        return Relation.SAME
    if not seen.sequence or not now.sequence or seen.commit in now.before:
        return Relation.AHEAD
    if now.commit in seen.before:
        return Relation.BEHIND
    is_out_of_sight = now.sequence - seen.sequence > len(now.before)
    return Relation.AHEAD if is_out_of_sight else Relation.UNRELATED


def parse_head(data: bytes, dataset: str) -> Head:
    """HEAD of the dataset. Raises IntegrityError, SettingsError (a newer format, a disk that takes it for another)."""
    try:
        fields = Fields(parse(data))
        number = fields.format(FORMAT, f"HEAD of {dataset}")
        value = _value(fields) if number == 1 else _checked_value(fields, dataset)
    except ValueError as error:
        raise _damaged(dataset, error) from error
    if value.is_fence and number == FORMAT and not value.snapshot:
        return value
    at, _, name = value.manifest_key.rpartition("/")
    snapshot, _, name = name.partition("-")
    is_name = name.endswith(".gz") and is_content_id(name[: -len(".gz")])
    if not is_name or snapshot != value.snapshot or not is_content_id(snapshot) or at not in folders_of(dataset):
        raise _damaged(dataset, f"{value.manifest_key!r} is not a manifest of its snapshot")
    return value


def encode_head(value: Head, dataset: str) -> bytes:
    document = {
        "format": FORMAT,
        "store": value.store_id,
        "dataset": _in_utf_8(dataset),
        "sequence": value.sequence,
        "gc": value.gc,
        "snapshot": value.snapshot,
        "manifest": value.manifest_key,
        "layout": "" if value.is_fence else value.layout,
        "before": list(value.before),
        "fences": value.fences,
        **({"removed_at": value.removed_at, "removed_by": value.removed_by} if value.removed_at else {}),
    }
    return (json.dumps({**document, "check": check_of(document)}) + "\n").encode()


def _value(fields: Fields) -> Head:
    snapshot, key = fields.text("snapshot"), fields.text("manifest")
    return Head(snapshot, key, fields.one_of("layout", LAYOUTS_WRITTEN)) if key else Head(snapshot, key)


def _checked_value(fields: Fields, dataset: str) -> Head:
    fields.require_check()
    if (named := fields.text("dataset")) != _in_utf_8(dataset):
        if named.casefold() == _in_utf_8(dataset).casefold():  # not damage: a repair would overwrite the other one
            raise SettingsError(
                f"the disk of the store takes {dataset} for its dataset {named}: it ignores case",
                hint="rename one of the two folders",
            )
        raise ValueError(f"it is the HEAD of {named}")
    before = tuple(fields.array("before"))
    if not all(type(commit) is str for commit in before):
        raise ValueError("'before' must be a list of commits")
    removed_at = fields.text("removed_at", "")
    if removed_at and datetime.fromisoformat(removed_at).tzinfo is None:
        raise ValueError("'removed_at' must name its zone")
    return _value(fields)._replace(
        store_id=fields.text("store"),
        sequence=fields.number("sequence"),
        gc=fields.number("gc"),
        before=before,
        fences=fields.number("fences"),
        removed_at=removed_at,
        removed_by=fields.text("removed_by", ""),
    )


def _in_utf_8(dataset: str) -> str:
    return dataset.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _damaged(dataset: str, why: object) -> IntegrityError:
    return IntegrityError(f"HEAD of {dataset} cannot be read: {why}", hint=repair_command(dataset))
