"""`runs share`: what a run has made, for people without an account.

In a container: links to copies below `runs/<run>/shared/<until>-<random>/`, which hold until then, or until the copies
are deleted. In a folder: one zip file. A link is a secret: it is a part of the result, and of nothing else.
"""

from __future__ import annotations

import mimetypes
import secrets
import time
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from amlctl.core.message import Command
from amlctl.core.path_filter import path_filter
from amlctl.core.store_keys import outputs_index_key, outputs_prefix, shared_prefix
from amlctl.errors import NotFound, UsageError
from amlctl.localfs.atomic import temporary_beside
from amlctl.localfs.disk_errors import disk_error
from amlctl.operations.context import Context
from amlctl.parallel import for_each
from amlctl.runs.tree import TreeFile, read_index, stored_key
from amlctl.stores.contract import Links, Store

REPORT = "report.html"
MOST_FILES = 20
"""Outputs that are linked where no file is named."""


class Shared(NamedTuple):
    """`file` is a path of the outputs, or the report; `url` a link that needs no account."""

    file: str
    url: str


@dataclass(frozen=True)
class ShareResult:
    """`links` hold until `expires_at` (ISO 8601); `left_out` counts outputs that are not linked."""

    run: str
    expires_at: str
    links: Sequence[Shared]
    studio_url: str | None
    left_out: int = 0

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "links": [one._asdict() for one in self.links]}


@dataclass(frozen=True)
class ZipResult:
    """A file to pass on, since a store in a folder gives no links."""

    run: str
    file: str
    bytes: int
    files: int
    studio_url: str | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class _Wanted:
    store: Store
    files: Sequence[TreeFile]
    left_out: int = 0
    studio_url: str | None = None
    prefix: str = ""

    def key(self, file: TreeFile) -> str:
        return stored_key(self.prefix, file)


def _wanted(context: Context, run: str, patterns: Sequence[str], most: int | None) -> _Wanted:
    """Raises NotFound (no output matches)."""
    record = context.workspace.read(run)
    store = context.store
    listed = read_index(store, outputs_index_key(run)) or ()
    is_wanted = path_filter(patterns)
    files = [file for file in listed if not file.path.endswith("/") and is_wanted(file.path)]
    if patterns and not files:
        raise NotFound(f"run {run} has no outputs matching {', '.join(patterns)}", hint=Command("runs", "report", run))
    shown = files if patterns or most is None else files[:most]
    return _Wanted(store, shown, len(files) - len(shown), record.studio_url, outputs_prefix(run))


def share_links(
    context: Context, run: str, patterns: Sequence[str], links: Links, until: datetime, page: Callable[[], bytes]
) -> ShareResult:
    """`page` is the report, which is linked where no file is named. Raises NotFound, RightsError, SettingsError."""
    wanted = _wanted(context, run, patterns, MOST_FILES)
    store, folder = wanted.store, f"{shared_prefix(run)}{int(until.timestamp())}-{secrets.token_hex(8)}/"
    _delete(store, [key for key in _shared_keys(store, run) if _expired(key, run)])
    found: list[Shared] = []
    if not patterns:
        store.put(folder + REPORT, page())
        found.append(Shared(REPORT, links.link(folder + REPORT, "text/html; charset=utf-8")))

    def copy(file: TreeFile) -> None:
        links.copy(wanted.key(file), f"{folder}outputs/{file.path}")

    for_each(copy, wanted.files, store.concurrency)
    for file in wanted.files:
        media_type = mimetypes.guess_type(file.path)[0] or "application/octet-stream"
        found.append(Shared(file.path, links.link(f"{folder}outputs/{file.path}", media_type)))
    return ShareResult(run, until.isoformat(timespec="seconds"), found, wanted.studio_url, wanted.left_out)


def share_zip(
    context: Context, run: str, patterns: Sequence[str], target: Path, page: Callable[[], bytes]
) -> ZipResult:
    """Raises NotFound, RightsError and what a full disk raises."""
    wanted = _wanted(context, run, patterns, None)
    temporary = temporary_beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(temporary, "x", zipfile.ZIP_DEFLATED) as archive:
            if not patterns:
                archive.writestr(f"{run}/{REPORT}", page())
            for file in wanted.files:
                path = wanted.store.local_path(wanted.key(file))
                if path is None:
                    raise NotFound(
                        f"output {file.path} of run {run} is not in the store", hint=Command("store", "verify")
                    )
                archive.write(path, f"{run}/outputs/{file.path}")
        temporary.replace(target)
    except OSError as error:
        raise disk_error(error, str(target)) or UsageError(f"cannot write {target}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    count = len(wanted.files) + (not patterns)
    return ZipResult(run, str(target), target.stat().st_size, count, wanted.studio_url)


def revoke(store: Store, run: str) -> int:
    """End all links to what the run has made; how many there were."""
    keys = _shared_keys(store, run)
    _delete(store, keys)
    return len(keys)


def _shared_keys(store: Store, run: str) -> list[str]:
    return [entry.key for entry in store.list(shared_prefix(run))]


def _expired(key: str, run: str) -> bool:
    until = key.removeprefix(shared_prefix(run)).partition("-")[0]
    return until.isdigit() and int(until) < time.time()


def _delete(store: Store, keys: Sequence[str]) -> None:
    for_each(store.delete, keys, store.concurrency)
