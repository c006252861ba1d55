"""Outputs of a run whose list is lost or damaged."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from amlctl.core.message import Command, count
from amlctl.errors import IntegrityError
from amlctl.stores.contract import Store, is_valid_key
from amlctl.workspaces.contract import RunFile

_DETAILS = 20
"""Unlisted files that the error names."""


class UnlistedOutputs:
    """Outputs whose list is lost: what the store has of one node, unverified. Satisfies `RunFiles`."""

    def __init__(self, store: Store, prefix: str) -> None:
        """`prefix` is that of the outputs; their layers (see `runs.tree`) are beside it."""
        self._store = store
        self._prefix = prefix
        self._keys: dict[str, str] = {}
        self._files: list[RunFile] | None = None

    def files(self) -> Sequence[RunFile]:
        if self._files is None:
            folder = self._prefix[: self._prefix.rindex("/", 0, -1) + 1]
            layer = re.compile(re.escape(self._prefix[:-1]) + r"(?:\.[0-9]+)?/")
            found: dict[str, RunFile] = {}
            for entry in self._store.list(folder):
                match = layer.match(entry.key)
                path = entry.key[match.end() :] if match else ""
                if path and is_valid_key(path):
                    known = found.get(path)
                    if known is None or known.modified_at < entry.modified_at:  # the newer one of two layers
                        found[path] = RunFile(path, entry.size_bytes, entry.modified_at)
                        self._keys[path] = entry.key
            self._files = [found[path] for path in sorted(found)]
        return self._files

    def download(self, file: RunFile, target: Path) -> None:
        self._store.download(self._keys[file.path], target)
        os.utime(target, (file.modified_at, file.modified_at))


def without_list(run: str, why: str, stored: UnlistedOutputs) -> IntegrityError:
    files = stored.files()
    if not files:
        return IntegrityError(
            f"the list of outputs of run {run} is lost: {why}, and the store has no outputs of it",
            hint=Command("logs", run),
        )
    names = [file.path for file in files]
    more = [f"and {len(names) - _DETAILS} more"] if len(names) > _DETAILS else []
    return IntegrityError(
        f"the list of outputs of run {run} is lost: {why}; the store still has {count(len(names), 'file')}",
        hint=Command("fetch", "--unlisted", run),
        details=[*names[:_DETAILS], *more],
    )
