"""Projects that share one store, and what a test does with a dataset of theirs."""

from __future__ import annotations

import random
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from amlctl.core.events import Event, Note, Warned
from amlctl.core.manifest import Manifest
from amlctl.localfs.project import Project
from amlctl.operations.status import DatasetStatus, status
from amlctl.operations.sync.pull import pull
from amlctl.operations.sync.sync import SyncOptions, SyncResult, dry_run, sync
from amlctl.snapshots.heads import read_head
from amlctl.snapshots.manifests import read_manifest
from amlctl.stores.contract import Store
from amlctl.stores.directory import DirectoryStore
from tests.support.context import Context
from tests.support.trees import Tree, read_tree, write_tree

DATASET = "working/x"
OPTIONS = SyncOptions(pack_size=20_000, pack_below=4_000)
"""Small limits, so that little data makes several packs and objects."""


class Clone(Context):
    """One project and the store that it syncs with. `options` are fields of SyncOptions that differ from OPTIONS."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.events: list[Event] = []
        super().__init__(Project(folder), store, self.events.append)
        self.project.data_blobs_dir.mkdir(parents=True, exist_ok=True)

    @property
    def root(self) -> Path:
        return self.project.dataset_path(DATASET)

    @property
    def tree(self) -> Tree:
        return read_tree(self.root)

    def make(self, tree: Tree, dataset: str = DATASET) -> None:
        """The dataset's folder holds exactly this from now on."""
        root = self.project.dataset_path(dataset)
        shutil.rmtree(root, ignore_errors=True)
        write_tree(root, tree)

    def sync(self, dataset: str = DATASET, **options: Any) -> SyncResult:
        return sync(self, dataset, replace(OPTIONS, **options))

    def foresee(self, dataset: str = DATASET, **options: Any) -> SyncResult:
        return dry_run(self, dataset, replace(OPTIONS, **options))

    def pull(
        self, dataset: str = DATASET, *, snapshot: str | None = None, is_dry_run: bool = False, **options: Any
    ) -> SyncResult:
        return pull(
            self,
            dataset,
            replace(OPTIONS, **options),
            snapshot=snapshot,
            is_dry_run=is_dry_run,
        )

    def status(self, dataset: str = DATASET, **options: Any) -> DatasetStatus:
        return status(self, dataset, replace(OPTIONS, **options))

    def sync_until_settled(self, **options: Any) -> SyncResult:
        """Files that changed less than two seconds ago are read again by the next sync; this waits them out."""
        deadline = time.monotonic() + 20
        while True:
            result = self.sync(**options)
            if result.hashed_bytes == 0 or time.monotonic() > deadline:
                return result
            time.sleep(0.1)

    @property
    def messages(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, (Note, Warned))]


class Clones:
    """A store in a folder, and clones by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = DirectoryStore(folder / "store")
        self._clones: dict[str, Clone] = {}

    def __getitem__(self, name: str) -> Clone:
        if name not in self._clones:
            self._clones[name] = Clone(self.folder / name, self.store)
        return self._clones[name]

    def stored(self, dataset: str = DATASET) -> Tree | None:
        """What a fresh clone finds in the store; None without such a dataset."""
        if read_head(self.store, dataset) is None:
            return None
        folder = self.folder / "stranger"
        shutil.rmtree(folder, ignore_errors=True)
        stranger = Clone(folder, self.store)
        stranger.pull(dataset)
        return read_tree(stranger.project.dataset_path(dataset))

    def manifest(self, dataset: str = DATASET) -> Manifest:
        """That of HEAD."""
        head = read_head(self.store, dataset)
        assert head is not None
        return read_manifest(self.store, head.manifest_key)

    def stored_keys(self, prefix: str = "") -> set[str]:
        return {entry.key for entry in self.store.list(prefix)}

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Bytes of every value, by key."""
        return {entry.key: entry.size_bytes for entry in self.store.list(prefix)}

    def path(self, key: str) -> Path:
        found = self.store.local_path(key)
        assert found is not None
        return found


def random_tree(seed: int, files: int = 60, *, most: int = 6_000) -> Tree:
    """Bytes that do not deflate, of different sizes, in a few folders."""
    rng = random.Random(seed)
    return {f"d{n % 7}/f{n}": rng.randbytes(rng.randint(1, most)) for n in range(files)}
