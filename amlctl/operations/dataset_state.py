"""What every command about a dataset starts with: the local entries, the store's HEAD, and the last agreement.

The scan and the request for HEAD run side by side. Where neither local stat data nor HEAD moved since the last
sync, nothing else is read: neither a manifest nor the cache's rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from amlctl.core.events import EventSink, Stage, StageProgress, Warned
from amlctl.core.manifest import FileEntry, Manifest, dataset_folder, decode_section, empty_manifest
from amlctl.core.wording import typed_dataset
from amlctl.errors import IntegrityError, NotFound
from amlctl.localfs.ignore_rules import dataset_rules
from amlctl.localfs.locks import exclusive
from amlctl.localfs.project import Project
from amlctl.localfs.read_only import copied_state
from amlctl.localfs.scan import Scan, scan
from amlctl.localfs.stat_cache import CachedScan, StatCache
from amlctl.localfs.sync_state import Base, SyncState
from amlctl.operations.store_apart import check_apart
from amlctl.stores.contract import Store
from amlctl.transfer.heads import Head, last_written, read_head
from amlctl.transfer.manifests import read_manifest

LARGE_FROM = 20_000
"""Files from which a second process pays for a scan; as many as the last scan has found."""


@dataclass
class DatasetState:
    """`settled`: what the whole scan came to last time, if no stat data changed since."""

    dataset: str
    root: Path
    scanned: Scan | None
    digest: bytes
    head: Head | None
    base: Base | None
    settled: CachedScan | None

    @property
    def cache_key(self) -> str:
        return cache_key(self.dataset)

    def local(self) -> Scan:
        """Raises NotFound where the dataset is not on this machine."""
        if self.scanned is None:
            here = "it is in the store" if self.head else "neither is it in the store"
            raise NotFound(
                f"data_blobs/{self.dataset} is not on this machine; {here}",
                hint=f"amlctl sync --pull {typed_dataset(self.dataset)}" if self.head else "check the path",
            )
        return self.scanned


def cache_key(dataset: str) -> str:
    """What the stat cache calls a dataset's folder: its path in the project."""
    return f"data_blobs/{dataset}"


_DATABASES = ("stat_cache.sqlite", "sync_state.sqlite")


class LocalState(NamedTuple):
    """The project's own databases, held open by one command."""

    cache: StatCache
    sync: SyncState


@contextmanager
def local_state(project: Project, purpose: str, sink: EventSink, *, is_reading: bool = False) -> Iterator[LocalState]:
    """One command at a time writes the local state; a second one waits and says for whom. `is_reading`: the command
    writes nothing that has to last, so in a project that cannot be written it works on a copy."""
    if is_reading and not project.is_state_writable():
        with copied_state(project, _DATABASES) as folder, _opened(folder, sink) as state:
            yield state
        return
    folder = project.ensure_state_dir()
    with exclusive(folder / "sync.lock", purpose, sink), _opened(folder, sink) as state:
        yield state


@contextmanager
def _opened(folder: Path, sink: EventSink) -> Iterator[LocalState]:
    def warn(told: str) -> None:
        sink(Warned(told))

    cache_file, sync_file = (folder / name for name in _DATABASES)
    with closing(StatCache(cache_file, warn)) as cache, closing(SyncState(sync_file, warn)) as known:
        yield LocalState(cache, known)


def look_at(
    project: Project,
    store: Store,
    dataset: str,
    ignore: Sequence[str],
    state: LocalState,
    sink: EventSink,
    *,
    is_repair: bool = False,
) -> DatasetState:
    """Scan the dataset and read its HEAD, at the same time; a repair takes the snapshot that was written last for a
    HEAD that cannot be read. Raises what the store raises."""
    root = project.dataset_path(dataset)
    store.check_key(f"{dataset_folder(dataset)}/HEAD")
    check_apart(store, root, f"data_blobs/{dataset}")
    last = state.cache.last_scan(cache_key(dataset))
    is_large = last is not None and last.files >= LARGE_FROM
    rules = dataset_rules(project, dataset, ignore)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(read_head, store, dataset)
        try:
            scanned = scan(root, rules, is_large=is_large)
        except FileNotFoundError:
            scanned = None
        try:
            head = asked.result()
        except IntegrityError as error:
            if not is_repair:
                raise
            head = last_written(store, dataset)
            sink(Warned(f"{error.message}; snapshot {head.snapshot[:12]}, which was written last, is taken for it"))
    digest = b"" if scanned is None else scanned.digest(rules.digest)
    looked = DatasetState(dataset, root, scanned, digest, head, state.sync.base(store.url, dataset), None)
    if scanned is not None:
        check_apart(store, root, f"data_blobs/{dataset}", scanned)
        for warning in scanned.warnings:
            sink(Warned(f"{dataset}/{warning}"))
        if last is not None and last.digest == digest and not scanned.unreadable:
            looked.settled = last
        sink(StageProgress(Stage.SCAN, dataset, len(scanned.folders), 0, is_done=True))
    return looked


def head_manifest(store: Store, dataset: str, head: Head | None) -> Manifest:
    return empty_manifest(dataset) if head is None else read_manifest(store, head.manifest_key)


def base_manifest(store: Store, looked: DatasetState, head: Manifest) -> Manifest:
    """The last agreement; empty where there was none, or where gc has taken its manifest since."""
    if looked.base is None:
        return empty_manifest(looked.dataset)
    if looked.base.snapshot == head.snapshot:
        return head
    if looked.base.section:
        entries: list[FileEntry] = []
        decode_section(looked.base.section, entries, {}, {})
        return Manifest(looked.dataset, head.layout, entries, {}, {}, snapshot=looked.base.snapshot)
    try:
        return read_manifest(store, looked.base.manifest_key)
    except NotFound:
        return empty_manifest(looked.dataset)
