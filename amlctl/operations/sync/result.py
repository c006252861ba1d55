"""The options of a sync or a pull, and its result."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from amlctl.core.diff import Changes, Side
from amlctl.core.head import Head
from amlctl.core.manifest import FileEntry, Manifest, StoredLayout, total_bytes
from amlctl.core.message import Command, below_data_blobs
from amlctl.core.settings import LayoutName, SyncSettings
from amlctl.core.sync_plan import Layout, SyncPlan
from amlctl.stores.contract import Store


@dataclass(frozen=True)
class SyncOptions:
    """Sizes in bytes; `jobs` files at a time. `ours` and `theirs` decide conflicts, file by file; `force` makes the
    store hold exactly what is here. `yes`: what would go is confirmed."""

    layout: LayoutName = "auto"
    pack_below: int = 1 << 20
    pack_size: int = 64 << 20
    ignore: tuple[str, ...] = ()
    checksum: bool = False
    verify: bool = False
    repair: bool = False
    ours: bool = False
    theirs: bool = False
    force: bool = False
    delete: bool = False
    yes: bool = False
    jobs: int | None = None

    @classmethod
    def of(cls, settings: SyncSettings) -> SyncOptions:
        """What the settings say of every sync."""
        return cls(settings.layout, settings.pack_below, settings.pack_size, settings.ignore)

    def workers(self, store: Store) -> int:
        """Files that travel at a time."""
        return self.jobs or store.concurrency

    @property
    def prefer(self) -> Side | None:
        return Side.OURS if self.ours else Side.THEIRS if self.theirs else None

    def command(self, dataset: str, *more: str) -> Command:
        """A sync with the options that say what is to be done, and `more`, for a hint that repeats it. How conflicts
        are decided is not among them."""
        layout = () if self.layout == "auto" else ("--layout", self.layout)
        names = ("checksum", "verify", "repair", "force", "delete")
        given = (f"--{name}" for name in names if getattr(self, name))
        return Command("sync", *layout, *given, *more, below_data_blobs(dataset))

    def layout_rules(self, present: StoredLayout | None) -> Layout:
        """`auto` stays with `mirror` where a dataset has that layout already."""
        name: LayoutName = "mirror" if self.layout == "auto" and present == "mirror" else self.layout
        return Layout(name, self.pack_below, self.pack_size)


@dataclass(frozen=True)
class SyncResult:
    """What a sync or pull did; counts are files, `…_bytes` bytes. `requests` counts calls of the store. `not_here`
    are the files that the store has otherwise than this machine, after a sync that merged."""

    dataset: str
    snapshot: str
    previous: str | None
    layout: StoredLayout
    files: int
    bytes: int
    added: int = 0
    modified: int = 0
    deleted: int = 0
    unchanged: int = 0
    uploaded_blobs: int = 0
    uploaded_bytes: int = 0
    reused_bytes: int = 0
    downloaded_files: int = 0
    downloaded_bytes: int = 0
    requests: int = 0
    hashed_bytes: int = 0
    seconds: float = 0.0
    not_here: int = 0
    dry_run: bool = False
    manifest_key: str = ""

    def to_json(self) -> dict[str, Any]:
        document = asdict(self)
        del document["manifest_key"]
        if not self.dry_run:
            del document["dry_run"]
        return document


class Measure:
    """What a command takes, from now on."""

    def __init__(self, store: Store) -> None:
        self._traffic = store.traffic
        self._started_s = time.monotonic()
        self._requests, self._sent_bytes = store.traffic.requests, store.traffic.sent_bytes

    @property
    def sent_bytes(self) -> int:
        return self._traffic.sent_bytes - self._sent_bytes

    def taken(self, result: SyncResult, *, is_dry_run: bool = False) -> SyncResult:
        requests, seconds = self._traffic.requests - self._requests, round(time.monotonic() - self._started_s, 3)
        return replace(result, requests=requests, seconds=seconds, dry_run=is_dry_run)


def unchanged_result(dataset: str, head: Head, files: int, size_bytes: int) -> SyncResult:
    """The store holds all of it already."""
    return SyncResult(
        dataset,
        head.snapshot,
        head.snapshot,
        head.layout,
        files,
        size_bytes,
        unchanged=files,
        reused_bytes=size_bytes,
        manifest_key=head.manifest_key,
    )


def committed_result(
    dataset: str, snapshot: str, entries: Sequence[FileEntry], head: Manifest, changes: Changes, plan: SyncPlan
) -> SyncResult:
    """HEAD was `head`; `changes` lead from there to `entries`, which are `snapshot`."""
    return SyncResult(
        dataset,
        snapshot,
        head.snapshot if head.created_at else None,
        plan.layout,
        files=len(entries),
        bytes=total_bytes(entries),
        added=len(changes.added),
        modified=len(changes.modified),
        deleted=len(changes.deleted),
        unchanged=changes.unchanged,
        uploaded_blobs=len(plan.packs) + len(plan.files),
        reused_bytes=plan.reused_bytes,
    )
