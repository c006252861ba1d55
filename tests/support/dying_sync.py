"""A program for `WarmCommand`: a sync or gc with a store that ends the process, without a word, at its N-th call.

Arguments: STORE N before|after [PROJECT DATASET]; without a project, a gc.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from amlctl.core.events import null_sink
from amlctl.localfs.project import Project
from amlctl.operations.store.gc import gc
from amlctl.operations.store.needed import KeepRules
from amlctl.operations.sync.sync import SyncOptions, sync
from amlctl.stores.directory import DirectoryStore
from tests.support.clock import YEAR_LATER
from tests.support.context import Context

OPTIONS = SyncOptions(pack_size=20_000, pack_below=4_000)
DIED = 9


class DyingStore(DirectoryStore):
    """The real store; every method that changes or reads a value counts as a call."""

    def __init__(self, root: Path, calls: int, *, is_after: bool) -> None:
        super().__init__(root)
        self._left = calls
        self._is_after = is_after

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in ("get", "get_versioned", "put", "_adopt", "swap", "info", "list", "delete"):
            return found

        def counted(*arguments: Any, **named: Any) -> Any:
            self._left -= 1
            is_last = self._left == 0
            if is_last and not self._is_after:
                os._exit(DIED)
            try:
                return found(*arguments, **named)
            finally:
                if is_last:
                    os._exit(DIED)

        return counted


def main() -> None:
    folder, calls, moment, *synced = sys.argv[1:]
    store = DyingStore(Path(folder), int(calls), is_after=moment == "after")
    if synced:
        root, dataset = synced
        sync(Context(Project(Path(root)), store), dataset, OPTIONS)
    else:
        gc(store, KeepRules(YEAR_LATER), delete=True, sink=null_sink)
