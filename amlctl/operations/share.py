"""`runs share`: what a run has made, for people without an account.

In a container: links to copies below `runs/<run>/shared/<until>-<random>/`, which hold until then, or until the copies
are deleted. In a folder: one zip file. A link is a secret: it is a part of the result, and of nothing else.
"""

from __future__ import annotations

import mimetypes
import os
import secrets
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from amlctl.core.message import Command
from amlctl.core.store_keys import outputs_index_key, outputs_prefix, shared_prefix
from amlctl.errors import NotFound, UsageError
from amlctl.localfs.atomic import temporary_beside
from amlctl.localfs.disk_errors import disk_error
from amlctl.localfs.wildmatch import path_filter
from amlctl.operations.context import Context, Document
from amlctl.operations.runs import RunAt, each_of_sweep
from amlctl.parallel import for_each, in_parallel
from amlctl.runs.tree import read_index, stored_key
from amlctl.stores.contract import Links, Store

REPORT = "report.html"
MOST_FILES = 20
"""Outputs that are linked where no file is named."""


class Shared(NamedTuple):
    """`file` is a path of the outputs (of a sweep below the id of the run), or the report; `url` a link that needs no
    account."""

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
class ZipResult(Document):
    """A file to pass on, since a store in a folder gives no links."""

    run: str
    file: str
    bytes: int
    files: int
    studio_url: str | None


@dataclass(frozen=True)
class _Wanted:
    """`keys` in the store by path; of a sweep, the path begins with the id of the run."""

    store: Store
    keys: Mapping[str, str]
    left_out: int
    studio_url: str | None


def _wanted(context: Context, run: str, patterns: Sequence[str], most: int | None) -> _Wanted:
    """Raises NotFound (no output matches)."""
    record, store, is_wanted = context.workspace.read(run), context.store, path_filter(patterns)
    keys: dict[str, str] = {}
    runs = [one.run for one in each_of_sweep([RunAt(run, context)])]
    indexes = in_parallel(lambda one: read_index(store, outputs_index_key(one)) or (), runs, store.concurrency)
    for one, index in zip(runs, indexes, strict=True):
        folder = f"{one}/" if record.spec.sweep else ""
        for file in index:
            if not file.is_folder and is_wanted(file.path):
                keys[folder + file.path] = stored_key(outputs_prefix(one), file)
    if patterns and not keys:
        raise NotFound(f"run {run} has no outputs matching {', '.join(patterns)}", hint=Command("runs", "report", run))
    shown = keys if patterns or most is None else dict(islice(keys.items(), most))
    return _Wanted(store, shown, len(keys) - len(shown), record.studio_url)


def share_links(
    context: Context, run: str, patterns: Sequence[str], links: Links, page: Callable[[], bytes]
) -> ShareResult:
    """`page` is the report, which is linked where no file is named. Raises NotFound, RightsError, SettingsError."""
    wanted, until = _wanted(context, run, patterns, MOST_FILES), links.until
    store, folder = wanted.store, f"{shared_prefix(run)}{int(until.timestamp())}-{secrets.token_hex(8)}/"
    _delete(store, [key for key in _shared_keys(store, run) if _expired(key, run)])
    found: list[Shared] = []
    if not patterns:
        store.put(folder + REPORT, page())
        found.append(Shared(REPORT, links.link(folder + REPORT, "text/html; charset=utf-8")))

    def copy(path: str) -> None:
        links.copy(wanted.keys[path], f"{folder}outputs/{path}")

    for_each(copy, list(wanted.keys), store.concurrency)
    for path in wanted.keys:
        media_type = mimetypes.guess_type(path)[0] or "application/octet-stream"
        found.append(Shared(path, links.link(f"{folder}outputs/{path}", media_type)))
    return ShareResult(run, until.isoformat(timespec="seconds"), found, wanted.studio_url, wanted.left_out)


def share_zip(
    context: Context, run: str, patterns: Sequence[str], target: Path, page: Callable[[], bytes]
) -> ZipResult:
    """Raises NotFound, RightsError and what a full disk raises."""
    wanted = _wanted(context, run, patterns, None)
    temporary = temporary_beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # A zip knows no time before 1980, and no name that is not text.
        with zipfile.ZipFile(temporary, "x", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
            if not patterns:
                archive.writestr(f"{run}/{REPORT}", page())
            for path, key in wanted.keys.items():
                stored = wanted.store.local_path(key)
                if stored is None:
                    raise NotFound(f"output {path} of run {run} is not in the store", hint=Command("store", "verify"))
                archive.write(stored, os.fsencode(f"{run}/outputs/{path}").decode("utf-8", "replace"))
        temporary.replace(target)
    except OSError as error:
        raise disk_error(error, str(target)) or UsageError(f"cannot write {target}: {error.strerror}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    count = len(wanted.keys) + (not patterns)
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
    return until.isdecimal() and int(until) < time.time()


def _delete(store: Store, keys: Sequence[str]) -> None:
    for_each(store.delete, keys, store.concurrency)
