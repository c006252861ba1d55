"""Which files of a folder `fetch` has written, and whether they are unchanged since.

`.amlctl/runs/<id>/fetched.json` has, by folder and path, the content ids that a fetch wrote or was about to write
there: `{"format": 2, "folders": {folder: {path: [content id, …]}}}`. What a fetch is about to write is appended to
`fetched.journal` first, a line of JSON each time, so that files of a killed fetch do not look like the user's. A file
that is not recorded there, or has other bytes now, is the user's.

A folder inside the project is named relative to it: the project may be moved.
"""

from __future__ import annotations

import contextlib
import errno
import json
import stat
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from amlctl.localfs.atomic import kept_json, write_bytes
from amlctl.localfs.read_file import file_content_id
from amlctl.localfs.regular_file import open_regular, read_regular
from amlctl.runs.tree import Place

_FORMAT = 2
_MOST_JOURNAL_BYTES = 256 << 20
_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


class FetchedFiles(Place):
    """Those of one run in `target`: others are not replaced.

    For one process at a time. A read-only project has no record.
    """

    def __init__(self, state_dir: Path, run: str, target: Path) -> None:
        super().__init__(target)
        self._file = state_dir / "runs" / run / "fetched.json"
        self._journal = self._file.with_name("fetched.journal")
        self._lock = threading.Lock()
        self._folder = _name_of(target, state_dir.absolute().parent)
        self._folders = self._load()
        self._known = self._folders.setdefault(self._folder, {})
        self._is_changed = self._journal.exists()

    @property
    def paths(self) -> Iterable[str]:
        return list(self._known)

    def may_replace(self, path: str) -> bool:
        """Whether the file was written by a fetch and not changed since."""
        marks = self._known.get(path, ())
        full = self.target / path
        try:
            seen = full.lstat()
            return bool(marks) and stat.S_ISREG(seen.st_mode) and file_content_id(full) in marks
        except FileNotFoundError:
            return True
        except OSError:
            return False

    def announce(self, contents: Mapping[str, Iterable[str]]) -> None:
        """Content ids that are about to be written, by path. Raises OSError."""
        if not contents:
            return
        with self._lock:
            listed = {path: sorted(ids) for path, ids in contents.items()}
            line = {"folder": self._folder, "contents": listed}
            _fold(self._known, listed)
            self._is_changed = True
            with _unless_read_only():
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with open_regular(self._journal, "ab") as journal:
                    # The line feed before ends a line that a kill has cut short.
                    journal.write(b"\n" + json.dumps(line).encode() + b"\n")

    def settle(self, contents: Mapping[str, str]) -> None:
        """Content ids that are there now, by path. Raises OSError."""
        with self._lock:
            for path, content in contents.items():
                if self._known.get(path) != [content]:
                    self._known[path] = [content]
                    self._is_changed = True
            if not self._is_changed:
                return
            document = {"format": _FORMAT, "folders": self._folders}
            with _unless_read_only():
                write_bytes(self._file, (json.dumps(document) + "\n").encode())
                self._journal.unlink(missing_ok=True)
            self._is_changed = False

    def _load(self) -> dict[str, dict[str, list[str]]]:
        folders: dict[str, dict[str, list[str]]] = {}
        found = kept_json(self._file)
        if found.get("format") == _FORMAT:
            with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):
                folders = {
                    name: {p: list(marks) for p, marks in known.items()} for name, known in found["folders"].items()
                }
        with contextlib.suppress(OSError):
            for line in read_regular(self._journal, _MOST_JOURNAL_BYTES).splitlines():
                with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                    document = json.loads(line)
                    _fold(folders.setdefault(document["folder"], {}), document["contents"])
        return folders


def _fold(known: dict[str, list[str]], contents: Mapping[str, Iterable[str]]) -> None:
    for path, ids in contents.items():
        marks = known.setdefault(path, [])
        marks.extend(content for content in ids if content not in marks)


def _name_of(target: Path, root: Path) -> str:
    absolute = target.absolute()
    return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else str(absolute)


@contextlib.contextmanager
def _unless_read_only() -> Any:
    try:
        yield
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
