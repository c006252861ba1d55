"""`sync --adopt PREFIX`: plain files that are beside a store already become a dataset, without being sent.

Each file is read once, since contents go by the id of their bytes (here, where the same file is here), and is copied
within the store or the service to the object of that id. So the dataset is like every other one: what happens to the
plain files later does not matter to it.
"""

from __future__ import annotations

from collections.abc import Mapping

from amlctl.core.content_id import EMPTY
from amlctl.core.diff import folders_above
from amlctl.core.events import Note, SnapshotCommitted, Stage, StageProgress
from amlctl.core.head import Head
from amlctl.core.manifest import OBJECT, FileEntry, Manifest, check_path, entry_order, needs_no_bytes
from amlctl.core.message import Command, below_data_blobs, count
from amlctl.core.store_keys import check_dataset_name, object_key
from amlctl.errors import Conflict, IntegrityError, NotFound, UsageError
from amlctl.localfs.machine import user_at_host
from amlctl.operations.context import Context
from amlctl.operations.sync.merge import new_store_confirmed, was_removed
from amlctl.operations.sync.result import Measure, SyncOptions, SyncResult
from amlctl.parallel import ended_by_interrupt, in_parallel
from amlctl.snapshots.gc_mark import GcWatch
from amlctl.snapshots.heads import find_head, swap_head
from amlctl.snapshots.known import ensure_kept, repeated_if_lost
from amlctl.snapshots.manifests import write_manifest
from amlctl.snapshots.store_format import ensure_format
from amlctl.stores.contract import PlainFile, PlainFiles


def adopted_name(prefix: str) -> str:
    """The dataset that a prefix stands for: what follows `data_blobs/`, or all of it; of another folder its name."""
    parts = [part for part in prefix.split("/") if part not in ("", ".", "..", "~")]
    if "data_blobs" in parts:
        return "/".join(parts[parts.index("data_blobs") + 1 :])
    return "/".join(parts[-1:] if prefix[:1] in ("/", ".", "~") else parts)


def adopt(context: Context, plain: PlainFiles, dataset: str, options: SyncOptions, *, is_dry_run: bool) -> SyncResult:
    """Raises NotFound (no files there), Conflict (the dataset exists, or a file has changed), UsageError (a name),
    NeedsConfirmation (the store is gone)."""
    check_dataset_name(dataset)
    store, measure = context.store, Measure(context.store)
    command = Command("sync", "--adopt", plain.prefix, below_data_blobs(dataset))
    with new_store_confirmed(store, command, options), ended_by_interrupt(store):
        present = find_head(store, dataset)
        if present is not None and present.removed_at:
            raise was_removed(dataset, present)
        if present is not None and not present.is_fence:
            raise Conflict(
                f"{dataset} is in the store already", hint=Command("sync", "--pull", below_data_blobs(dataset))
            )
        listed = plain.files()
        names = files_among({file.path: file.size_bytes for file in listed})
        files = [file for file in listed if file.path in names]
        files.sort(key=lambda file: entry_order(FileEntry(file.path, 0, False, "")))
        if not files:
            raise NotFound(f"no files found below {plain.url}", hint="check the prefix")
        _check_names(files)
        if is_dry_run:
            size_bytes = sum(file.size_bytes for file in files)
            return SyncResult(dataset, "", None, "pack", len(files), size_bytes, added=len(files), dry_run=True)
        manifest, key = _adopted(context, plain, dataset, files, options)
    result = SyncResult(
        dataset,
        manifest.snapshot,
        None,
        manifest.layout,
        len(files),
        manifest.size_bytes,
        added=len(files),
        reused_bytes=manifest.size_bytes,
        hashed_bytes=manifest.size_bytes,
        manifest_key=key,
    )
    return measure.taken(result)


def _check_names(files: list[PlainFile]) -> None:
    for file in files:
        try:
            check_path(file.path)
        except IntegrityError as error:
            raise UsageError(
                f"{file.path!r} cannot be a file of a dataset", hint="rename it in the container"
            ) from error


def _adopted(
    context: Context, plain: PlainFiles, dataset: str, files: list[PlainFile], options: SyncOptions
) -> tuple[Manifest, str]:
    store, sink, root = context.store, context.sink, context.project.dataset_path(dataset)
    total = sum(file.size_bytes for file in files)
    store_id = ensure_format(store)

    def attempt(lost: object) -> tuple[Manifest, str]:
        watch = GcWatch(store, sink)
        watch.note()

        def take(file: PlainFile) -> FileEntry:
            path = root / file.path
            is_like_here = path.is_file() and path.stat().st_size == file.size_bytes
            content, version = plain.read(file, path if is_like_here else None)
            if content != EMPTY:
                plain.copy(file, version, object_key(content), content)
            return FileEntry(file.path, file.size_bytes, False, content)

        entries, done = [], 0
        for number, entry in enumerate(in_parallel(take, files, options.workers(store)), 1):
            entries.append(entry)
            done += entry.size_bytes
            sink(StageProgress(Stage.SEND, dataset, number, done, len(files), total))
        places = {entry.content_id: OBJECT for entry in entries if not needs_no_bytes(entry)}
        manifest = Manifest(dataset, "pack", entries, places, {}, created_by=user_at_host())
        written = write_manifest(store, manifest)
        ensure_kept(store, watch, manifest, written, reused=places)
        value = Head(manifest.snapshot, written.key, manifest.layout, store_id=store_id)
        swap_head(store, dataset, value, None, generation=watch.generation)
        sink(SnapshotCommitted(dataset, manifest.snapshot))
        sink(
            Note(f"{dataset}: {count(len(entries), 'file')} copied within the store; the plain files stay as they are")
        )
        return manifest, written.key

    return repeated_if_lost(attempt)


def files_among(sizes: Mapping[str, int]) -> set[str]:
    """`sizes` in bytes, by name. Raises UsageError for a file that is a folder as well."""
    folders = {folder for name in sizes for folder in folders_above(name)}
    files = {
        name for name, size_bytes in sizes.items() if not name.endswith("/") and (size_bytes or name not in folders)
    }
    if both := sorted(files & folders):
        raise UsageError(f"{both[0]!r} is a file and a folder as well", hint="rename it in the container", details=both)
    return files
