"""Stores that are never taken for empty when they are gone, for commands and for the processes of a run."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from amlctl.core.message import Command, Message
from amlctl.core.store_keys import AREAS, FORMAT_KEY, RUNS, area_of, record_key
from amlctl.errors import AmlctlError, NotFound, StoreGone
from amlctl.localfs.known_stores import known_store, remember_store
from amlctl.stores.contract import Body, Entry, OnBytes, Parts, Store, Versioned, unobserved
from amlctl.stores.wrappers import StoreWrapper

if TYPE_CHECKING:
    from amlctl.localfs.project import Project


class PresentStore(StoreWrapper, ABC):
    """Where a value is missing, and before anything is written, the store has to be there: a share that is not mounted
    looks like an empty folder. Every call raises StoreGone. `_check` decides; `_found` learns of each value."""

    def get(self, key: str, *, start: int = 0, length: Optional[int] = None, on_bytes: OnBytes = unobserved) -> bytes:
        with self._present(key):
            return self.store.get(key, start=start, length=length, on_bytes=on_bytes)

    def get_versioned(self, key: str) -> Optional[Versioned]:
        found = self.store.get_versioned(key)
        self._found(key) if found is not None else self._check()
        return found

    def download(self, key: str, target: Path, parts: Optional[Parts] = None, *, on_bytes: OnBytes = unobserved) -> int:
        with self._present(key):
            return self.store.download(key, target, parts, on_bytes=on_bytes)

    def put(self, key: str, body: Body, *, replace: bool = False, on_bytes: OnBytes = unobserved) -> bool:
        self._check()
        with self._present(key):
            return self.store.put(key, body, replace=replace, on_bytes=on_bytes)

    def swap(self, key: str, data: bytes, *, expected: Optional[str]) -> str:
        self._check()
        with self._present(key):
            return self.store.swap(key, data, expected=expected)

    def info(self, key: str) -> Optional[Entry]:
        found = self.store.info(key)
        self._found(key) if found is not None else self._check()
        return found

    def list(self, prefix: str) -> Iterator[Entry]:
        entry = None
        for entry in self.store.list(prefix):
            self._found(entry.key)
            yield entry
        if entry is None:
            self._check()

    def folders(self, prefix: str) -> Sequence[str]:
        names = self.store.folders(prefix)
        self._found(prefix) if names else self._check()
        return names

    @contextlib.contextmanager
    def _present(self, key: str) -> Iterator[None]:
        try:
            yield
        except NotFound:
            self._check()
            raise
        self._found(key)

    def _found(self, key: str) -> None:
        """A value is there, or was written."""

    @abstractmethod
    def _check(self) -> None:
        """Raises StoreGone."""

    def _gone(self, hint: Message) -> StoreGone:
        what = "not mounted?" if self.folder is not None else "deleted?"
        return StoreGone(
            f"the store {self.url} is gone: this project has used it, and it is not there ({what})", hint=hint
        )


class RememberedStore(PresentStore):
    """For commands: a store that this project has used has to be there.

    A value that is found, as the first one of nearly every command, shows that without a further request. That a folder
    is still there is looked at before each write, since a command may watch a run for days.
    """

    def __init__(self, store: Store, project: Project) -> None:
        super().__init__(store)
        self._project = project
        self._may_be_empty = False
        self._is_remembered = False
        self._is_new = False

    def begin_again(self) -> None:
        """An empty place is what it looks like from now on."""
        self._is_new = True

    def _found(self, key: str) -> None:
        # What `doctor` tries to write is elsewhere; what a run has written below a mount point is not a store.
        is_elsewhere = not area_of(key).name and key != FORMAT_KEY
        if self._is_remembered or is_elsewhere or (key.startswith(RUNS) and not self._has_format()):
            return
        self._is_remembered = self._may_be_empty = True
        with contextlib.suppress(AmlctlError):  # a project that cannot be written remembers nothing
            if not self._project.state_dir.is_dir():
                self._project.ensure_state_dir()
            remember_store(self._project.state_dir, self.url)

    def _check(self) -> None:
        if self._is_new or (self._may_be_empty and self._has_format()):
            return
        if not self._is_remembered:
            self._is_remembered = known_store(self._project.state_dir, self.url) is not None
        if self._is_remembered and not self._is_there():
            raise self._gone(Message("mount or restore it; to start a new one: ", Command("sync", "PATH", "--yes")))
        self._is_new = not self._is_remembered
        self._may_be_empty = True

    def _has_format(self) -> bool:
        """Of a folder; a container does not come into being by a write."""
        return self.folder is None or os.path.exists(self.folder / FORMAT_KEY)

    def _is_there(self) -> bool:
        if self.store.get_versioned(FORMAT_KEY) is not None:
            return True
        areas = [area.name for area in AREAS if self.folder is None or f"{area.name}/" != RUNS]
        return any(any(self.store.list(f"{name}/")) for name in areas)


class StoreOfRun(PresentStore):
    """For the processes of a run on this machine, from which its store must not come into being again: it is there
    while it has the record that the run was submitted with."""

    def __init__(self, store: Store, run: str) -> None:
        super().__init__(store)
        self._run = run

    def _check(self) -> None:
        if self.folder is not None and not os.path.exists(self.folder / record_key(self._run)):
            raise self._gone(Message("mount or restore it; then: ", Command("fetch", self._run)))


def begin_again(store: Store) -> None:
    """Where the store is gone, what is written from now on begins a new one there."""
    while isinstance(store, StoreWrapper):
        if isinstance(store, RememberedStore):
            store.begin_again()
        store = store.store
