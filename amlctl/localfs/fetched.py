"""Which files of a folder `fetch` has written, and whether they still are as it left them.

`.amlctl/runs/<id>/fetched.json` has size and mtime of each, by folder and path. A file that is not known there, or
looks different now, is the user's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from amlctl.errors import SettingsError
from amlctl.localfs.atomic import read_json, write_json


class FetchedFiles:
    """Those of one run in `target`. Paths are relative to it."""

    def __init__(self, state_dir: Path, run: str, target: Path) -> None:
        self._file = state_dir / "runs" / run / "fetched.json"
        self._target = target
        self._folders: dict[str, dict[str, Any]] = {}
        # Without it, or with a damaged one, every file that is there counts as the user's.
        with contextlib.suppress(OSError, SettingsError):
            found = read_json(self._file)
            if isinstance(found, dict):
                self._folders = {folder: files for folder, files in found.items() if isinstance(files, dict)}
        self._known = self._folders.setdefault(str(target.absolute()), {})

    def is_users(self, path: str) -> bool:
        """Something is there that a fetch would have to spare."""
        stamp = self._stamp(path)
        return stamp is not None and self._known.get(path) != stamp

    def remember(self, paths: Iterable[str]) -> None:
        """They are now as a fetch wants them."""
        new = {path: stamp for path in paths if (stamp := self._stamp(path)) is not None}
        if new.items() <= self._known.items():
            return
        self._known.update(new)
        write_json(self._file, self._folders)

    def _stamp(self, path: str) -> list[int] | None:
        try:
            seen = (self._target / path).stat()
        except OSError:
            return None
        return [seen.st_size, seen.st_mtime_ns]
