"""A store in memory and clones of a project on a disk of memory; and pictures of both, to start again from."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from amlctl.core.content_id import content_id
from amlctl.localfs.project import Project
from amlctl.operations.sync.pull import pull
from amlctl.operations.sync.sync import SyncOptions, SyncResult, sync
from amlctl.stores.contract import Store
from tests.simulator import virtual
from tests.support.context import Context
from tests.support.memory_store import MemoryStore, Value
from tests.support.trees import Tree

DATASET = "working/x"
OPTIONS = SyncOptions(layout="pack", pack_below=200, pack_size=300)
"""Two or three small files make a pack; what has 200 bytes is an object."""
_TEMPORARY = ".amlctl-tmp-"
_numbers = itertools.count()


class Picture(NamedTuple):
    """Of a world. `files`: path relative to the world's folder, bytes, mode; `folders` from the top down."""

    values: Mapping[str, Value]
    folders: Sequence[str]
    files: Sequence[tuple[str, bytes, int]]
    now_s: float


def memory_folder() -> Path:
    """A fresh folder on a disk of memory where the system has one."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="amlctl-simulator-", dir=memory if os.access(memory, os.W_OK) else None))


@dataclass
class World:
    """`folder` holds a project for each clone. Commands here run at once; actors run them over a store of their own."""

    folder: Path
    store: MemoryStore

    def project(self, clone: str) -> Project:
        return Project(self.folder / clone)

    def root(self, clone: str, dataset: str = DATASET) -> Path:
        return self.project(clone).dataset_path(dataset)

    def add_clone(self, clone: str) -> None:
        self.project(clone).data_blobs_dir.mkdir(parents=True)

    def edit(self, clone: str, edits: Mapping[str, bytes | None], dataset: str = DATASET) -> None:
        """Write files, or remove those that are None, as an editor does: a new file under the old name."""
        root = self.root(clone, dataset)
        for path, data in edits.items():
            target = root / path
            if data is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                target.write_bytes(data)
                continue
            target.unlink()
            folder = target.parent
            while folder != root and not any(folder.iterdir()):
                folder.rmdir()
                folder = folder.parent

    def tree(self, clone: str, dataset: str = DATASET) -> Tree:
        """What is in the dataset's folder, without the temporary files of killed commands."""
        return {path: data for path, data in files_below(self.root(clone, dataset)) if _TEMPORARY not in path}

    def sync(self, clone: str, *, store: Store | None = None, dataset: str = DATASET, **options: Any) -> SyncResult:
        return sync(
            Context(self.project(clone), store or self.store), dataset, replace(OPTIONS, **options),
            clock=lambda: virtual.host().now(),
        )  # fmt: skip

    def pull(
        self, clone: str, *, store: Store | None = None, dataset: str = DATASET, snapshot: str | None = None,
        **options: Any,
    ) -> SyncResult:  # fmt: skip
        return pull(
            Context(self.project(clone), store or self.store), dataset, replace(OPTIONS, **options), snapshot=snapshot
        )

    # --- pictures ----------------------------------------------------------------------------------------

    def picture(self) -> Picture:
        folders, files = [], []
        for folder, names, found in os.walk(self.folder):
            folders += [os.path.relpath(os.path.join(folder, name), self.folder) for name in names]
            for name in found:
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    files.append((os.path.relpath(path, self.folder), file.read(), os.stat(path).st_mode & 0o777))
        return Picture(dict(self.store.values), folders, files, virtual.host().now_s)

    def fingerprint(self) -> bytes:
        """The same for worlds that differ in times and inodes only."""
        state = hashlib.blake2b(digest_size=16)
        for key, value in sorted(self.store.values.items()):
            state.update(f"{key}\0{content_id(value.data)}\0{int(value.modified_at) // 3600}\n".encode())
        for path, data in sorted(files_below(self.folder)):
            if path.endswith("sync_state.sqlite"):
                state.update(repr(_rows(self.folder / path)).encode())
            elif not path.endswith((".sqlite", ".lock")) and _TEMPORARY not in path:
                state.update(f"{path}\0{content_id(data)}\n".encode("utf-8", "surrogateescape"))
        return state.digest()

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def new_world(base: Path, *, picture: Picture | None = None) -> World:
    """A world in a folder of its own below `base`, as the picture shows it."""
    folder = base / f"w{next(_numbers)}"
    folder.mkdir()
    # The clones' folders are always called the same, also where the product keeps their whole path.
    if picture is None:
        return World(folder, MemoryStore(lambda: virtual.host().now_s, is_folder=True))
    text = os.fspath(folder)
    for path in picture.folders:
        os.mkdir(f"{text}/{path}")
    for path, data, mode in picture.files:
        descriptor = os.open(f"{text}/{path}", os.O_WRONLY | os.O_CREAT, mode)
        os.write(descriptor, data)
        os.close(descriptor)
    return World(folder, MemoryStore(lambda: virtual.host().now_s, dict(picture.values), is_folder=True))


def files_below(root: Path) -> list[tuple[str, bytes]]:
    """Path and bytes; an empty folder is a path that ends with `/`."""
    found: list[tuple[str, bytes]] = []
    start = len(os.fspath(root)) + 1
    pending = [os.fspath(root)]
    while pending:
        folder = pending.pop()
        try:
            entries = list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not entries and len(folder) > start:
            found.append((folder[start:] + "/", b""))
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            else:
                with open(entry.path, "rb") as file:
                    found.append((entry.path[start:], file.read()))
    return found


def _rows(path: Path) -> list[Any]:
    """Everything that a database holds, in order."""
    if not path.exists():
        return []
    with closing(sqlite3.connect(path)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return [(table, sorted(database.execute(f'SELECT * FROM "{table}"'), key=repr)) for table in sorted(tables)]
