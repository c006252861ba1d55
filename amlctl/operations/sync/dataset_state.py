"""What every command about a dataset starts with: the local entries, the store's HEAD, and the last agreement.

The scan and the request for HEAD run side by side. Where neither local stat data nor HEAD moved since the last
sync, nothing else is read: neither a manifest nor the cache's rows.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Optional

from amlctl.core.content_id import is_content_id
from amlctl.core.events import EventSink, Stage, StageProgress, Warned
from amlctl.core.head import Head, encode_head
from amlctl.core.manifest import FileEntry, Manifest, decode_section, empty_manifest
from amlctl.core.message import Command, below_data_blobs
from amlctl.core.store_keys import AREAS, head_key
from amlctl.core.sync_plan import Layout
from amlctl.errors import IntegrityError, NotFound, StoreGone, UsageError
from amlctl.localfs.atomic import keeps_modes, remove_left_behind, scratch_folder
from amlctl.localfs.identify import CachedScan, Identified, KnownFolder, StatCache, identify
from amlctl.localfs.ignore import dataset_rules
from amlctl.localfs.known_stores import known_store, remember_store
from amlctl.localfs.locks import exclusive
from amlctl.localfs.project import Project, near_datasets
from amlctl.localfs.read_file import Taker
from amlctl.localfs.scan import Scan, scan
from amlctl.localfs.sync_state import Agreement, Base, Step, SyncState
from amlctl.mirror.export import PlainFilesUnderWay
from amlctl.operations.context import Context
from amlctl.operations.sync.result import SyncOptions
from amlctl.parallel import in_background
from amlctl.snapshots.heads import find_head, has_snapshots, last_written, no_head
from amlctl.snapshots.manifests import KeptManifests, read_manifest
from amlctl.snapshots.store_format import find_store_id
from amlctl.stores.contract import Store


@dataclass
class DatasetState:
    """`settled`: what the whole scan came to last time, if no stat data changed since. `store_key` is what this machine
    knows the store by: its id, or its URL where it has none yet."""

    context: Context
    state: LocalState
    options: SyncOptions
    dataset: str
    root: Path
    scanned: Scan | None
    digest: bytes
    head: Head | None
    store_key: str
    agreement: Agreement
    kept: KeptManifests
    settled: CachedScan | None
    removed: Head | None = None
    """HEAD of a dataset that was removed from the store; `head` is None then."""
    store_gone: StoreGone | None = None
    has_begun: bool = False
    """Whether this command has written down a step."""

    @property
    def store(self) -> Store:
        return self.context.store

    @property
    def sink(self) -> EventSink:
        return self.context.sink

    @property
    def base(self) -> Base | None:
        """The last agreement, if nothing has broken off since."""
        return None if self.agreement.under_way else self.agreement.base

    @property
    def is_new(self) -> bool:
        """Neither the store nor this machine has seen a sync of it."""
        return self.head is None and self.removed is None and self.agreement == Agreement(None)

    @property
    def store_id(self) -> str:
        """Empty where the store has none yet."""
        return self.store_key if is_content_id(self.store_key) else ""

    @property
    def cache_key(self) -> str:
        return cache_key(self.dataset)

    @property
    def layout(self) -> Layout:
        """The one that is wanted."""
        return self.options.layout_rules(None if self.head is None else self.head.layout)

    def know_store(self, store_id: str) -> None:
        """It has got its id just now."""
        self.store_key = store_id
        self.kept = self.kept.of_store(store_id)
        self.agreement = self.state.sync.agreement(store_id, self.dataset)

    def identify(
        self, *, taker: Taker | None = None, sink: EventSink | None = None, reads_all: bool = False
    ) -> Identified:
        """What the folder holds. Raises as `local`, RightsError."""
        found = identify(
            self.local(),
            KnownFolder(self.state.cache, self.cache_key, self.digest),
            checksum=self.options.checksum or reads_all,
            taker=taker,
            sink=sink or self.sink,
            subject=self.dataset,
        )
        is_each = bool(found.entries) and all(one.is_executable or one.path.endswith("/") for one in found.entries)
        if not is_each or keeps_modes(self.root):
            return found
        return self._with_agreed_modes(found)

    def _with_agreed_modes(self, found: Identified) -> Identified:
        """For a disk on which every file is executable: the bits are those that the store had, of new files none."""
        base = self.agreement.base
        agreed = {} if base is None else {entry.path: entry.is_executable for entry in self.entries_of(base)}
        entries = [entry._replace(is_executable=agreed.get(entry.path, False)) for entry in found.entries]
        changed, cache = replace(found, entries=entries), self.state.cache
        scan = cache.last_scan(self.cache_key)
        if scan is not None and scan.digest == self.digest:
            cache.remember_scan(self.cache_key, scan._replace(snapshot=changed.snapshot))
        return changed

    def entries_of(self, base: Base) -> Sequence[FileEntry]:
        """Empty where they cannot be known any more."""
        if base.section:
            entries: list[FileEntry] = []
            decode_section(base.section, entries, {}, {})
            return entries
        for source in (self.kept, self.store):
            try:
                return read_manifest(source, base.manifest_key).entries
            except (NotFound, IntegrityError):
                continue
        return ()

    def head_manifest(self) -> Manifest:
        return empty_manifest(self.dataset) if self.head is None else read_manifest(self.store, self.head.manifest_key)

    def agree(self, head: Head, *, base: Base | None = None) -> None:
        """Both have `base` in common from now on (default: all that `head` lists), and nothing is under way. Its
        entries are kept here."""
        base = base or Base(head.snapshot, head.manifest_key)
        if base.manifest_key:
            self.kept.keep(self.store, base.manifest_key)
        if self.agreement.under_way and self.scanned is not None:
            for folder in self.scanned.folders:  # what a pull that was killed has left among the user's files
                remove_left_behind(self.root / folder.path, older_than_s=0)
        self.state.sync.set_base(self.store_key, self.dataset, base._replace(head=encode_head(head, self.dataset)))
        remember_store(self.state.folder, self.store.url, store_id=self.store_key)
        self.kept.keep_only([base.manifest_key] if base.manifest_key else [])

    def agree_if_new(self, head: Head) -> None:
        """The same with all that `head` lists, unless that was agreed on before and nothing has been done since."""
        base = self.base
        if base is None or base.snapshot != head.snapshot or not base.head or self.has_begun:
            self.agree(head)

    def begin(self, step: Step, base: Base) -> None:
        """Write down what is about to be done, so that the next command knows what it is where this one is killed."""
        if base.manifest_key:
            self.kept.keep(self.store, base.manifest_key)
        self.has_begun = True
        self.state.sync.begin(self.store_key, self.dataset, step, base)

    def local(self) -> Scan:
        """Raises NotFound where the dataset is not on this machine."""
        if self.scanned is None:
            missing = f"data_blobs/{self.dataset} is not on this machine"
            if self.head:
                pull = Command("sync", "--pull", below_data_blobs(self.dataset))
                raise NotFound(f"{missing}; it is in the store", hint=pull)
            near = near_datasets(self.root.parents[self.dataset.count("/")], self.dataset)
            hint = f"did you mean {near[0]}?" if near else "check the path"
            raise NotFound(f"{missing}; nor is it in the store", hint=hint, details=near)
        return self.scanned


def cache_key(dataset: str) -> str:
    """What the stat cache calls a dataset's folder: its path in the project."""
    return f"data_blobs/{dataset}"


_DATABASES = ("stat_cache.sqlite", "sync_state.sqlite")


class LocalState(NamedTuple):
    """The project's own databases, held open by one command, and the folder that they are in."""

    folder: Path
    cache: StatCache
    sync: SyncState


@contextmanager
def local_state(context: Context, purpose: str, *, is_reading: bool = False) -> Iterator[LocalState]:
    """One command at a time writes the local state; a second one waits, and says for which. `is_reading`: the command
    writes nothing that has to last, so in a project that cannot be written it works on a copy."""
    project, sink = context.project, context.sink
    if is_reading and not project.is_state_writable():
        with _copied_state(project) as folder, _opened(folder, sink) as state:
            yield state
        return
    folder = project.ensure_state_dir()
    with exclusive(folder / "sync.lock", purpose, sink), _opened(folder, sink) as state:
        yield state


@contextmanager
def _copied_state(project: Project) -> Iterator[Path]:
    """A temporary folder with the databases of a project that cannot be written, each with its journals."""
    with scratch_folder() as folder:
        for name in _DATABASES:
            for suffix in ("", "-wal", "-journal"):
                with suppress(OSError):
                    shutil.copyfile(project.state_dir / f"{name}{suffix}", folder / f"{name}{suffix}")
        yield folder


@contextmanager
def _opened(folder: Path, sink: EventSink) -> Iterator[LocalState]:
    def warn(message: str) -> None:
        sink(Warned(message))

    cache_file, sync_file = (folder / name for name in _DATABASES)
    with closing(StatCache(cache_file, warn)) as cache, closing(SyncState(sync_file, warn)) as known:
        yield LocalState(folder, cache, known)


def look_at(
    context: Context,
    dataset: str,
    options: SyncOptions,
    state: LocalState,
    *,
    is_local_enough: bool = False,
    known_head: Head | None = None,
) -> DatasetState:
    """Scan the dataset and read its HEAD, at the same time, unless it is known; a repair takes the snapshot that was
    written last for a HEAD that cannot be read. Raises what the store raises, but where what is known here is enough
    not StoreGone."""
    project, store, sink = context.project, context.store, context.sink
    root = project.dataset_path(dataset)
    store.check_key(head_key(dataset))
    check_store_is_outside(store, root, f"data_blobs/{dataset}")
    if any(store.folder == one for one in root.parents if one.is_relative_to(project.data_blobs_dir)):
        # A dataset that holds both would send the store into itself.
        raise UsageError(f"data_blobs/{dataset} lies inside the store {store.folder}", hint=_HINT)
    last = state.cache.last_scan(cache_key(dataset))
    rules = dataset_rules(project, dataset, options.ignore)
    with nullcontext() if known_head else in_background(lambda: find_head(store, dataset)) as asked_head:
        try:
            scanned = scan(root, rules)
        except FileNotFoundError:
            scanned = None
        found, gone = known_head, None
        try:
            if asked_head is not None:
                found = _latest(asked_head.result, store, dataset, sink, is_repair=options.repair)
        except StoreGone as error:
            if not is_local_enough:
                raise
            gone = error
    removed = found if found is not None and found.removed_at else None
    head = None if found is None or found.is_fence else found
    digest = b"" if scanned is None else scanned.digest(rules.digest)
    if gone is not None:
        known = known_store(project.state_dir, store.url)
        store_key = (known and known.id) or store.url
    else:
        store_key = _store_key(project, store, found, state.sync)
    agreement = state.sync.agreement(store_key, dataset)
    if head is None and removed is None and gone is None and agreement.base is not None:
        # A gc puts a fence where HEAD is missing. One that has forgotten the dataset has deleted what was agreed on.
        key = agreement.base.manifest_key
        if store.info(key) is not None if found is not None and key else has_snapshots(store, dataset):
            raise no_head(store, dataset)
    kept = KeptManifests(project.state_dir, store_key, dataset)
    looked = DatasetState(
        context, state, options, dataset, root, scanned, digest, head, store_key, agreement, kept, None, removed, gone
    )
    if scanned is not None:
        check_store_is_outside(store, root, f"data_blobs/{dataset}", scanned)
        for warning in scanned.warnings:
            sink(Warned(f"{dataset}/{warning}"))
        if last is not None and last.digest == digest and not scanned.unreadable:
            looked.settled = last
        sink(StageProgress(Stage.SCAN, dataset, len(scanned.folders), 0, is_done=True))
    return looked


def _store_key(project: Project, store: Store, head: Head | None, known: SyncState) -> str:
    """No request where HEAD names its store."""
    store_id = (head.store_id if head is not None else "") or find_store_id(store)
    if not store_id:
        return store.url
    if by_url := known.datasets(store.url):  # from before the store had an id
        for dataset in by_url if project.is_state_writable() else ():
            KeptManifests(project.state_dir, store_id, dataset).adopt(store.url)
            PlainFilesUnderWay(project.state_dir, store_id, dataset).adopt(store.url)
        known.adopt(store.url, store_id)  # last: a command that is killed before does all of it again
    return store_id


def _latest(
    ask: Callable[[], Head | None], store: Store, dataset: str, sink: EventSink, *, is_repair: bool
) -> Head | None:
    """HEAD; for a repair, where it cannot be read or names nothing, the snapshot that was written last."""
    try:
        found = ask()
        if not is_repair or (found is not None and (found.removed_at or not found.is_fence)):
            return found
        if not has_snapshots(store, dataset):
            return found
        why = f"HEAD of {dataset} is missing"
    except IntegrityError as error:
        if not is_repair:
            raise
        why = error.message
    head = last_written(store, dataset)
    sink(Warned(f"{why}; using snapshot {head.snapshot[:12]}, which was written last"))
    return head


_HINT = "choose a store outside of data_blobs/ and pipeline/, such as .amlctl/store"


def check_store_is_outside(store: Store, folder: Path, what: str, scanned: Optional[Scan] = None) -> None:
    """Raises UsageError where `folder` holds the store, also by a link in it, or lies in what is the store's own.

    `what` names the folder; `scanned` are the folders in it, if they were looked at.
    """
    root = store.folder
    if root is None:
        return
    real, inside = _real(root), _real(folder)
    if real == inside:
        raise UsageError(f"the store {root} is the very folder of {what}", hint=_HINT)
    if inside in real.parents:
        raise UsageError(f"the store {root} lies inside {what}: it would be sent into itself", hint=_HINT)
    if _is_part(inside, real):
        raise UsageError(f"{what} lies inside the store {root}", hint="keep datasets and stores apart")
    for link in sorted(scanned.links) if scanned is not None else ():
        target = _real(folder / link)
        if target == real or _is_part(target, real) or _was_scanned(scanned, link, target, real):
            raise UsageError(f"{what}/{link} leads into the store {root}: it would be sent into itself", hint=_HINT)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises for a loop


def _is_part(folder: Path, store: Path) -> bool:
    return any(store / area.name in (folder, *folder.parents) for area in AREAS)


def _was_scanned(scanned: Optional[Scan], link: str, target: Path, store: Path) -> bool:
    """Whether the store lies below the target of the link, where no ignore file excludes it."""
    if scanned is None or target not in store.parents:
        return False
    at = f"{link}/{store.relative_to(target).as_posix()}"
    return any(f"{one.path}/".startswith(f"{at}/") for one in scanned.folders)
