"""Code snapshots: `pipeline/` and the runtime, as plain files under their content's id.

`code/<id>/pipeline/…` is the user's code without what ignore files name; `code/<id>/amlctl-runtime.zip` is the part of
this package that runs on a node; `code/<id>/context/…` is what an image is built from, if one is. The id is the
snapshot id of exactly these files. `code/<id>.json`, their index, is written last: a snapshot without it is not
complete. Until 2026-11 the runtime was plain files below `code/<id>/amlctl/`; those snapshots still run.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import amlctl
from amlctl.core.content_id import content_id
from amlctl.core.events import EventSink, Note, Stage, Warned, null_sink
from amlctl.core.job import PIPELINE, RUNTIME_ARCHIVE
from amlctl.core.manifest import FileEntry, entry_order, snapshot_id
from amlctl.core.message import count, size, some
from amlctl.core.pack import gzip_bytes
from amlctl.core.store_keys import FORMAT_KEY, code_index_key, code_prefix
from amlctl.errors import IntegrityError, NotFound
from amlctl.localfs.atomic import scratch_folder
from amlctl.localfs.identify import KnownFolder, StatCache, identify
from amlctl.localfs.ignore import IgnoreRules
from amlctl.localfs.read_file import file_content_id
from amlctl.localfs.scan import Scan, scan, unpack_rows
from amlctl.parallel import in_background, in_parallel
from amlctl.runs.tree import TreeFile, encode_index, read_index
from amlctl.snapshots.store_format import ensure_format
from amlctl.snapshots.transfers import Transfers
from amlctl.stores.contract import FileBody, Store

CONTEXT = "context"
_RUNTIME_MODULES = (
    "__init__.py",
    "errors.py",
    "parallel.py",
    "core",
    "localfs",
    "stores/__init__.py",
    "stores/contract.py",
    "stores/directory.py",
    "stores/value_files.py",
    "stores/presence.py",
    "stores/wrappers.py",
    "snapshots",
    "mirror",
    "runs",
    "runtime",
)
"""Files and folders of the package that go to a node."""
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_SHOWN_KEYS = 3


@dataclass(frozen=True)
class CodeFiles:
    """The files of a snapshot; `sources` says where they are on this disk, by path, except the runtime."""

    id: str
    entries: Sequence[FileEntry]
    sources: Mapping[str, Path]

    @property
    def own(self) -> Sequence[FileEntry]:
        """The user's files; the others are the runtime."""
        return [entry for entry in self.entries if entry.path.startswith(f"{PIPELINE}/")]


Sources = Sequence[tuple[FileEntry, Path]]
"""Files with their paths in a snapshot, and where they are on this disk."""


@functools.cache
def runtime_archive() -> bytes:
    """The runtime's modules as one zip; the same sources give the same bytes on every machine.

    Stored, not deflated: deflate libraries differ in their output, and an import is quicker without.
    """
    from zipfile import ZipFile, ZipInfo  # here, since most commands send no code

    package = Path(amlctl.__file__).parent
    modules = [
        module
        for name in _RUNTIME_MODULES
        for module in ([package / name] if name.endswith(".py") else (package / name).rglob("*.py"))
    ]
    archive = io.BytesIO()
    with ZipFile(archive, "w") as file:
        for module in sorted(modules):
            file.writestr(ZipInfo(f"amlctl/{module.relative_to(package).as_posix()}", _ZIP_EPOCH), module.read_bytes())
    return archive.getvalue()


def collect_code(
    pipeline: Optional[Path],
    ignore: IgnoreRules,
    *,
    context: Sources = (),
    cache: StatCache | None = None,
    sink: EventSink = null_sink,
) -> CodeFiles:
    """What a submit would send; `pipeline` is a folder, a single file, or None for a job without code.

    Raises RightsError, Conflict, FileNotFoundError (no `pipeline/`).
    """
    found = [*context, *(_collected(pipeline, PIPELINE, ignore, cache, sink) if pipeline else ())]
    if ignore.left_out:
        sink(Note(_left_out_keys(sorted(ignore.left_out))))
    runtime = runtime_archive()
    entries = [*(entry for entry, _ in found), FileEntry(RUNTIME_ARCHIVE, len(runtime), False, content_id(runtime))]
    entries.sort(key=entry_order)
    return CodeFiles(snapshot_id(entries), entries, {entry.path: source for entry, source in found})


def collect_context(folder: Path, ignore: IgnoreRules, *, sink: EventSink = null_sink) -> tuple[str, Sources]:
    """What an image is built from, and a digest of it. Raises as `collect_code` does."""
    found = sorted(_collected(folder, CONTEXT, ignore, None, sink), key=lambda item: entry_order(item[0]))
    return snapshot_id([entry for entry, _ in found]), found


def _collected(
    root: Path, name: str, ignore: IgnoreRules, cache: StatCache | None, sink: EventSink
) -> list[tuple[FileEntry, Path]]:
    scanned = scan(root, ignore)
    for warning in scanned.warnings:
        sink(Warned(f"{name}/{warning}"))
    large = large_code(code_sizes(scanned)) if name == PIPELINE else None
    if large is not None:  # before all of it is read
        lines = "; ".join(f"echo '{line}' >> .amlctlignore" for line in large.ignore_lines)
        sink(Warned(f"{PIPELINE}/: {large.message}. To leave it out: {lines}"))
    entries = identify(scanned, None if cache is None else KnownFolder(cache, name), sink=sink, subject=name).entries
    if scanned.is_one_file:
        return [(entry._replace(path=f"{name}/{root.name}"), root) for entry in entries]
    return [
        (entry._replace(path=f"{name}/{entry.path}"), root / entry.path)
        for entry in entries
        if not entry.path.endswith("/") and "__pycache__" not in entry.path
    ]


def _left_out_keys(paths: Sequence[str]) -> str:
    what = count(len(paths), "file or folder", "files and folders")
    left_out = some(paths, _SHOWN_KEYS)
    return f"code: left out {what} with keys or logins: {left_out}; to send one, add !PATH to .amlctlignore"


def send_code(
    store: Store,
    code: CodeFiles,
    *,
    earlier: Callable[[], str | None] = lambda: None,
    sink: EventSink = null_sink,
) -> int:
    """Send what is missing or damaged in the store; how many bytes. Raises Conflict where a file has changed since it
    was collected.

    Files that are in the snapshot `earlier` too are copied within the store, if that is a service.

    The files are listed even where the index exists: a gc may have deleted some of them after an interrupted submit.
    In a folder their bytes are checked as well.
    """
    sent = 0
    prefix, index_key = code_prefix(code.id), code_index_key(code.id)
    # Compressed: it is most of what is sent for one changed file.
    index = gzip_bytes(encode_index([TreeFile(*entry) for entry in code.entries]))
    is_folder = store.local_path(FORMAT_KEY) is not None
    if is_folder:  # costs nothing; of a service it costs a request, and only before something is sent
        ensure_format(store)
    with in_background(lambda: _holds(store, index_key, index)) as holds:
        there = {entry.key[len(prefix) :]: entry.size_bytes for entry in store.list(prefix)}
        is_whole = holds.result()
    to_send = [
        entry
        for entry in code.entries
        if there.get(entry.path) != entry.size_bytes or _is_damaged(store, prefix, entry)
    ]
    if to_send or not is_whole:
        if not is_folder:
            ensure_format(store)
        same = {} if is_folder else _keys_by_content(store, earlier())
        with scratch_folder() as scratch:
            sources = {**code.sources, RUNTIME_ARCHIVE: scratch / RUNTIME_ARCHIVE}
            sources[RUNTIME_ARCHIVE].write_bytes(runtime_archive())

            size_bytes = sum(entry.size_bytes for entry in to_send)
            transfers = Transfers(Stage.SEND, "code", sink)
            transfers.expect(len(to_send), size_bytes, len(to_send))

            def send(entry: FileEntry) -> int:
                transfer = transfers.transfer(1, entry.size_bytes, entry.size_bytes)
                is_same = entry.content_id in same
                same_as = same.get(entry.content_id)
                body = FileBody(sources[entry.path], entry.size_bytes, entry.content_id, same_as=same_as)
                # The key can only have these bytes, so a copy needs no condition.
                is_replaced = entry.path in there or is_same
                was_sent = store.put(prefix + entry.path, body, replace=is_replaced, on_bytes=transfer.moved)
                transfer.done()
                return entry.size_bytes if was_sent and not is_same else 0

            sent = sum(in_parallel(send, to_send, store.concurrency))
            transfers.finish()
        store.put(index_key, index, replace=True)
        files = f"{len(code.own)} file{'' if len(code.own) == 1 else 's'}"
        sink(Note(f"code: {files}; {size(sent)} sent, amlctl's runtime included"))
    return sent


def _keys_by_content(store: Store, code: str | None) -> Mapping[str, str]:
    """Keys of the files of a snapshot, by content id; empty where it is missing or cannot be read."""
    if code is None:
        return {}
    try:
        files = read_index(store, code_index_key(code)) or ()
    except IntegrityError:
        return {}
    return {file.content_id: code_prefix(code) + file.path for file in files}


def _is_damaged(store: Store, prefix: str, entry: FileEntry) -> bool:
    path = store.local_path(prefix + entry.path)
    return path is not None and file_content_id(path) != entry.content_id


def _holds(store: Store, key: str, data: bytes) -> bool:
    try:
        return store.get(key, length=len(data) + 1) == data
    except NotFound:
        return False


MANY_FILES = 1_000
MANY_BYTES = 20 << 20
"""Above these every submit is slow, and something else than code is among the files."""
_ENVIRONMENT_SIGNS = ("pyvenv.cfg", "conda-meta/history")
"""Files at the top of a virtual and of a conda environment."""
_MAIN_SHARE = 0.8
_SHOWN = 3


@dataclass(frozen=True)
class LargeCode:
    """`message` names what is large, and `ignore_lines` leave it out, in `.amlctlignore` at the project's root."""

    message: str
    ignore_lines: tuple[str, ...]


def code_sizes(scanned: Scan) -> dict[str, int]:
    """In bytes, by path relative to the project's root."""
    return {
        "/".join(filter(None, (PIPELINE, folder.path, row.name))): row.size_bytes
        for folder in scanned.folders
        if "__pycache__" not in folder.path
        for row in unpack_rows(folder.rows)
    }


def large_code(sizes: Mapping[str, int]) -> Optional[LargeCode]:
    """`sizes` in bytes by path relative to the project's root. None where nothing is remarkable."""
    environments = sorted(
        path[: -len(sign)] for path in sizes for sign in _ENVIRONMENT_SIGNS if path.endswith("/" + sign)
    )
    total = sum(sizes.values())
    if not environments and len(sizes) <= MANY_FILES and total <= MANY_BYTES:
        return None
    rest = {path: held for path, held in sizes.items() if not path.startswith(tuple(environments))}
    is_rest_large = len(rest) > MANY_FILES or sum(rest.values()) > MANY_BYTES
    found = [*environments, *(_largest(rest) if is_rest_large else ())]
    shown = []
    for path in found[:_SHOWN]:
        inside = [held for one, held in sizes.items() if one.startswith(path)] if path.endswith("/") else [sizes[path]]
        files = f"{count(len(inside), 'file')}, " if path.endswith("/") else ""
        what = "a Python environment, " if path in environments else ""
        shown.append(f"{path} ({what}{files}{size(sum(inside))})")
    share = "among them" if environments else "most of it"
    return LargeCode(
        f"{count(len(sizes), 'file')}, {size(total)} are sent with every run, {share} {', '.join(shown)}",
        tuple(f"/{path}" for path in found[:_SHOWN]),
    )


def _largest(sizes: Mapping[str, int]) -> list[str]:
    """Files and folders (ending in `/`) that together make most of it, the largest first; each as deep as one folder
    holds nearly all of what is above it."""
    weights: dict[str, float] = {}
    total_files, total_bytes = len(sizes), sum(sizes.values()) or 1
    for path, held in sizes.items():
        # A share of the limits, so that many small files weigh like a few large ones.
        weight = held / total_bytes * (total_bytes > MANY_BYTES) + (total_files > MANY_FILES) / total_files
        parts = path.split("/")
        for depth in range(2, len(parts) + 1):
            name = "/".join(parts[:depth]) + ("/" if depth < len(parts) else "")
            weights[name] = weights.get(name, 0.0) + weight
    children: dict[str, list[str]] = {}
    for name in weights:
        above = name.rstrip("/").rpartition("/")[0] + "/"
        children.setdefault(above, []).append(name)
    top = min((path.split("/")[0] for path in sizes), default="") + "/"
    found, covered = [], 0.0
    whole = sum(weights[name] for name in children.get(top, ()))
    for name in sorted(children.get(top, ()), key=lambda one: -weights[one]):
        if covered >= _MAIN_SHARE * whole:
            break
        covered += weights[name]
        while name.endswith("/"):
            heaviest = max(children[name], key=lambda one: weights[one])
            if weights[heaviest] < _MAIN_SHARE * weights[name] or not heaviest.endswith("/"):
                break
            name = heaviest
        found.append(name)
    return found
