"""What a sync would do, without doing it. And `why`: whether a path is ignored, and which dataset, snapshot and pack
hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from amlctl.core.diff import diff
from amlctl.core.events import Warned
from amlctl.core.manifest import ONE_FILE, FileEntry
from amlctl.core.message import Command
from amlctl.errors import NotFound, StoreGone
from amlctl.localfs.ignore import Rule, dataset_rules, decide_path
from amlctl.localfs.known_stores import known_store, remember_store
from amlctl.localfs.project import Project
from amlctl.localfs.read_file import file_content_id
from amlctl.operations.context import Context, Document
from amlctl.operations.dataset.listing import StoredNames, stored_names
from amlctl.operations.sync.dataset_state import LocalState, local_state, look_at
from amlctl.operations.sync.merge import agreed_entries, was_removed
from amlctl.operations.sync.result import SyncOptions
from amlctl.snapshots.contents import place_key
from amlctl.snapshots.heads import has_snapshots, no_head, read_head
from amlctl.snapshots.manifests import read_manifest
from amlctl.snapshots.store_format import find_store_id


@dataclass(frozen=True)
class DatasetStatus(Document):
    """Paths that differ from the last sync; from HEAD where this machine never synced, and then none counts as deleted:
    a sync would delete none. `remote_moved`: HEAD is not where this machine left it. `snapshot` is HEAD's, or None.
    `here`: the dataset is on this machine; one that is not has no list of deleted files either. `removed`: when it was
    removed from the store (ISO 8601), if it was. `store_gone`: the store is not there, which says nothing of it."""

    dataset: str
    new: Sequence[str]
    modified: Sequence[str]
    deleted: Sequence[str]
    remote_moved: bool
    snapshot: str | None
    here: bool = True
    removed: str = ""
    store_gone: bool = False


def all_datasets(context: Context) -> list[str]:
    """What `status` shows where nothing is named: datasets of the store, and those that were synced from here and still
    exist here; the latter alone, with a warning, where the store is gone."""
    with local_state(context, "amlctl status", is_reading=True) as state:
        return known_datasets(context, state)


def status(context: Context, dataset: str, options: SyncOptions) -> DatasetStatus:
    """Raises NotFound (neither here nor in the store), StoreGone (and not here)."""
    with local_state(context, "amlctl status", is_reading=True) as state:
        return _status(context, dataset, options, state)


def _status(context: Context, dataset: str, options: SyncOptions, state: LocalState) -> DatasetStatus:
    store = context.store
    looked = look_at(context, dataset, options, state, is_local_enough=True)
    head, base = looked.head, looked.agreement.base
    removed = "" if looked.removed is None else looked.removed.removed_at
    if looked.removed is not None and looked.scanned is None:
        raise was_removed(dataset, looked.removed, NotFound)
    if looked.scanned is None and looked.store_gone is not None:
        raise looked.store_gone
    if looked.scanned is None and head is None:
        if has_snapshots(store, dataset):
            raise no_head(store, dataset)
        raise NotFound(f"dataset {dataset} not found, neither here nor in the store", hint="check the path")
    remote_moved = head is not None and (base is None or base.snapshot != head.snapshot)
    agreed = None if base is None else base.snapshot
    is_new = base is None and not looked.agreement.under_way
    snapshot = None if head is None else head.snapshot
    found = DatasetStatus(dataset, (), (), (), remote_moved, snapshot, here=looked.scanned is not None, removed=removed)
    if looked.scanned is None:
        return found
    found = replace(found, store_gone=looked.store_gone is not None)
    settled = None if looked.agreement.under_way else looked.settled
    if settled is not None and settled.snapshot == (agreed or snapshot):
        return found
    local = looked.identify().entries
    stored = looked.head_manifest()
    changes = diff(stored.entries if is_new else agreed_entries(looked, local, stored), local)
    deleted = () if is_new else changes.deleted  # what was never here was not deleted here
    return replace(found, new=changes.added, modified=changes.modified, deleted=deleted)


def known_datasets(context: Context, state: LocalState) -> list[str]:
    """See `all_datasets`."""
    project, store = context.project, context.store
    try:
        stored, store_id = all_stored(context), find_store_id(store)
    except StoreGone as gone:
        context.sink(Warned(gone.message))
        known = known_store(project.state_dir, store.url)
        stored, store_id = StoredNames([], []), "" if known is None else known.id
    synced = {dataset for key in (store_id, store.url) for dataset in state.sync.datasets(key)}
    here = {dataset for dataset in synced if project.dataset_path(dataset).exists()}
    for name in stored.without_head:
        if name not in here:
            context.sink(Warned(no_head(store, name).message))
    return sorted(here | {*stored.datasets})


def all_stored(context: Context) -> StoredNames:
    """Completion knows them from then on. Raises IntegrityError where none has a HEAD."""
    store = context.store
    names = stored_names(store)
    remember_store(context.project.state_dir, store.url, datasets=names.datasets)
    if names.without_head and not names.datasets:
        raise no_head(store, names.without_head[0])
    return names


@dataclass(frozen=True)
class Why(Document):
    """`rule` decided (None: no rule matches), `rule_file` and `rule_line` say where it stands. `dataset` and what
    follows are of the dataset in the store that holds the path, `place` is the key of its bytes in the store. `state`
    compares the file here with the one there: synced, new, modified, deleted."""

    path: str
    is_ignored: bool
    rule: str | None
    rule_file: str | None
    rule_line: int | None
    dataset: str | None = None
    snapshot: str | None = None
    content_id: str | None = None
    place: str | None = None
    state: str | None = None


def why(context: Context, path: Path) -> Why:
    """`path` is absolute. Raises NotFound: neither on this disk nor in a synced dataset, or outside of what is
    synced."""
    from amlctl.localfs.code_rules import code_rules  # here, since a status does without what starts git

    project = context.project
    if path.is_relative_to(project.pipeline_dir):
        is_ignored, rule, _ = decide_path(code_rules(project), project.pipeline_dir, path)
        return _answer(project, path, is_ignored, rule)
    if not path.is_relative_to(project.data_blobs_dir):
        raise NotFound(f"{path} is outside of pipeline/ and data_blobs/", hint="nothing else is synced or sent")
    name = path.relative_to(project.data_blobs_dir).as_posix()
    with local_state(context, "amlctl why", is_reading=True) as state:
        known = known_datasets(context, state)
    dataset = max((d for d in known if name == d or name.startswith(f"{d}/")), key=len, default="")
    root = project.dataset_path(dataset) if dataset else project.data_blobs_dir
    is_ignored, rule, _ = decide_path(dataset_rules(project, dataset, context.settings.sync.ignore), root, path)
    answer = _answer(project, path, is_ignored, rule)
    try:
        head = read_head(context.store, dataset) if dataset else None
    except StoreGone:  # it was warned of above
        if not path.exists():
            raise
        head = None
    if head is not None:
        answer = replace(answer, dataset=dataset, snapshot=head.snapshot)
        manifest = read_manifest(context.store, head.manifest_key)
        inside = ONE_FILE if name == dataset else name[len(dataset) + 1 :]
        for entry in manifest.entries:
            if entry.path == inside:
                place = manifest.places.get(entry.content_id)
                key = None if place is None else place_key(manifest, entry, place)
                found = _state(path, entry)
                return replace(answer, content_id=entry.content_id, place=key, state=found)
    if not path.exists():
        raise NotFound(f"{path} does not exist, and no synced dataset has it", hint=Command("status"))
    return replace(answer, state="new") if head is not None and path.is_file() else answer


def _state(path: Path, entry: FileEntry) -> str | None:
    try:
        if path.stat().st_size != entry.size_bytes:
            return "modified"
        return "synced" if file_content_id(path) == entry.content_id else "modified"
    except FileNotFoundError:
        return "deleted"
    except OSError:  # unreadable, so the state is unknown
        return None


def _answer(project: Project, path: Path, is_ignored: bool, rule: Rule | None) -> Why:
    shown = path.relative_to(project.root).as_posix()
    if rule is None:
        return Why(shown, is_ignored, None, None, None)
    return Why(shown, is_ignored, rule.pattern, rule.source, rule.line or None)
