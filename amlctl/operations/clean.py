"""`clean`: what takes up space on this machine, and freeing what the store has too."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from amlctl.core.events import Warned
from amlctl.core.message import Command, count, size
from amlctl.core.run import RunRecord
from amlctl.core.store_keys import FORMAT_KEY, outputs_tree
from amlctl.errors import CheckFailed, IntegrityError, NeedsConfirmation
from amlctl.localfs.disk_use import CACHES, ENVIRONMENTS, KINDS, OUTPUTS, DiskItem, disk_item, folders_in
from amlctl.localfs.folders import walk
from amlctl.localfs.project import Project
from amlctl.localfs.target import in_the_way
from amlctl.operations.context import Context, Disk, iso_time
from amlctl.runs.fetched import FetchedFiles
from amlctl.runs.records import load_local_record
from amlctl.runs.tree import read_tree_index, stored_key
from amlctl.snapshots.known import missing_values
from amlctl.stores.contract import Store


@dataclass(frozen=True)
class CleanResult:
    """`freed` are those of `items` that were freed, or would be."""

    items: Sequence[DiskItem]
    freed: Sequence[DiskItem]
    dry_run: bool

    @property
    def freed_bytes(self) -> int:
        return sum(item.bytes for item in self.freed)

    def to_json(self) -> dict[str, Any]:
        return {
            "items": [_document(item) for item in self.items],
            "freed": [_document(item) for item in self.freed],
            "freed_bytes": self.freed_bytes,
            "dry_run": self.dry_run,
        }


def _document(item: DiskItem) -> dict[str, Any]:
    used_at = iso_time(item.used_at) if item.used_at else None
    return {**asdict(item), "path": str(item.path), "used_at": used_at}


def usage(project: Project, disk: Disk) -> list[DiskItem]:
    """Kind by kind, the largest first."""
    found = [*disk.items(), *_outputs(project)]
    return sorted(found, key=lambda item: (KINDS.index(item.kind), -item.bytes, item.name))


def clean(
    context: Context,
    kinds: Collection[str],
    *,
    unused_since: datetime | None,
    hint: str,
    is_dry_run: bool,
    is_sure: bool,
) -> CleanResult:
    """Free what is of these kinds and was not used for so long; without kinds, list that alone.

    Raises NeedsConfirmation with the `hint`, and what the store raises that is to have it all.
    """
    items = usage(context.project, context.disk)
    old = [item for item in items if unused_since is None or item.used_at <= unused_since.timestamp()]
    if not kinds:
        return CleanResult(old, [], is_dry_run)
    wanted = [item for item in old if item.kind in kinds and not item.kept]
    if not wanted:
        return CleanResult(items, wanted, is_dry_run)
    total = size(sum(item.bytes for item in wanted))
    if not is_sure and not is_dry_run:
        kind_cells, name_cells = max(len(one.kind) for one in wanted), max(len(one.name) for one in wanted)
        raise NeedsConfirmation(
            f"{count(len(wanted), 'item')}, {total} would be deleted from this machine",
            hint=hint,
            details=[f"{item.kind:{kind_cells}}  {item.name:{name_cells}}  {size(item.bytes)}" for item in wanted],
        )
    if not is_dry_run and any(item.kind == CACHES for item in wanted):
        # Runs on this machine fill them, from their stores: one that is gone or out of reach cannot make them again.
        in_use, all_of_them = context.settings.workspace().name, context.settings.workspaces
        for name in [name for name, one in all_of_them.items() if one.runs_here or name == in_use]:
            context.in_workspace(name).store.info(FORMAT_KEY)
    freed = []
    for item in wanted:
        if item.kind == OUTPUTS:
            kept = _free_outputs(context, item, is_dry_run=is_dry_run)
        else:
            kept = "" if is_dry_run else context.disk.free(item, _store_of(context, item))
        if kept:
            context.sink(Warned(f"{item.kind} {item.name} {'would be' if is_dry_run else 'was'} kept: {kept}"))
        else:
            freed.append(item)
    return CleanResult(items, freed, is_dry_run)


def _store_of(context: Context, item: DiskItem) -> Store:
    """That of the run, or the one in use."""
    record = None
    with suppress(IntegrityError, OSError):
        record = load_local_record(context.project.state_dir, item.name)
    return context.store if record is None else context.in_workspace(record.spec.workspace).store


def _outputs(project: Project) -> Iterator[DiskItem]:
    """Folders that a fetch has made."""
    for folder in folders_in(project.outputs_dir):
        record = project.state_dir / "runs" / folder.name
        if (record / "fetched.json").exists() or (record / "fetched.journal").exists():
            yield disk_item(OUTPUTS, folder)


_PARTLY = "files were changed or added here; only the others go"


def _free_outputs(context: Context, item: DiskItem, *, is_dry_run: bool) -> str:
    """Only files that a fetch has written, that are unchanged, and that the store still has. Gives why others stay."""
    state_dir, run = context.project.state_dir, item.name
    try:
        record = load_local_record(state_dir, run)
    except IntegrityError as error:
        return error.message
    if record is None or not record.is_final:
        return "the run is active, or not known"
    try:
        if not _are_stored(context.in_workspace(record.spec.workspace).store, record):
            return "the store does not have them"
    except IntegrityError as error:
        return error.message
    fetched = FetchedFiles(state_dir, run, item.path)

    def is_unchanged(path: str) -> bool:
        return fetched.may_replace(path) and in_the_way(item.path, path).top == path  # not behind a link

    if is_dry_run:
        paths = [Path(folder, name) for folder, _, names in walk(item.path) for name in names]
        present = {path.relative_to(item.path).as_posix() for path in paths}
        return _PARTLY if present - {path for path in fetched.paths if is_unchanged(path)} else ""
    for path in fetched.paths:
        if is_unchanged(path):
            (item.path / path).unlink(missing_ok=True)
    for folder, _, _ in reversed([*walk(item.path)]):
        with suppress(OSError):  # it has more files
            os.rmdir(folder)
    return _PARTLY if item.path.exists() else ""


def _are_stored(store: Store, record: RunRecord) -> bool:
    """Whether the store has all that the run has put out. Raises IntegrityError (a list of it cannot be read)."""
    wanted: dict[str, int] = {}
    for rank in range(record.spec.instances):
        tree = outputs_tree(record.run, rank)
        index = read_tree_index(store, tree.index_key)
        if index is None:
            return False
        prefix = tree.prefix_in(index.format)
        wanted.update((stored_key(prefix, file), file.size_bytes) for file in index.files if not file.is_folder)
    return not missing_values(store, wanted)


def space_message(project: Project, disk: Disk, limit_bytes: int) -> str:
    """What outputs, caches and logs take; environments are those of all projects. Raises CheckFailed where it is more
    than it should be, OSError."""
    items = [item for item in usage(project, disk) if item.kind != ENVIRONMENTS]
    total = sum(item.bytes for item in items)
    parts = {kind: sum(item.bytes for item in items if item.kind == kind) for kind in KINDS}
    by_size = sorted((kind for kind in KINDS if parts[kind]), key=lambda kind: -parts[kind])
    largest = ", ".join(f"{kind} {size(parts[kind])}" for kind in by_size)
    what = f"{size(total)} on this machine" + (f": {largest}" if largest else "")
    if total > limit_bytes:
        raise CheckFailed(what, hint=Command("clean"))
    return what
