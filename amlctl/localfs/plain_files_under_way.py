"""Plain files of a mirror that this machine may have replaced without having moved HEAD: it was killed, or stopped.

Until HEAD has moved they count as none of HEAD's, so that the next sync writes them again, whatever they are here by
then. One small file of JSON a mirror, in the project's local state; without it nothing is in doubt.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import xxhash

from amlctl.errors import SettingsError
from amlctl.localfs.atomic import read_json, write_json


class PlainFilesUnderWay:
    """Of one dataset in one store. For one command at a time (see `locks.py`)."""

    def __init__(self, state_dir: Path, store: str, dataset: str) -> None:
        self._state_dir = state_dir
        self._dataset = dataset
        name = xxhash.xxh3_128_hexdigest(f"{store}\0{dataset}".encode("utf-8", "surrogateescape"))
        self._path = state_dir / "mirrors" / f"{name}.json"

    def adopt(self, known_as: str) -> None:
        """Take over what was written down when the store went by another name. Raises OSError."""
        before = PlainFilesUnderWay(self._state_dir, known_as, self._dataset)
        if in_doubt := before.paths():
            self.begin(in_doubt)
        before.end()

    def paths(self) -> frozenset[str]:
        try:
            return frozenset(map(str, read_json(self._path)))
        except (FileNotFoundError, SettingsError, TypeError):
            return frozenset()

    def begin(self, paths: Iterable[str]) -> None:
        """Before the first of them is replaced. Raises OSError."""
        write_json(self._path, sorted({*self.paths(), *paths}))

    def end(self) -> None:
        """HEAD names what they are now."""
        self._path.unlink(missing_ok=True)
