"""`fetch`: a run's outputs, from the store into `outputs/<run-id>/`.

Only what is missing or different is downloaded. A file written by an earlier fetch is replaced if the run's differs;
one that was changed here, or put there by something else, is kept with a warning. Works while the run is active: the
store has what the runtime saved last. Files of plain Azure ML jobs, which it does not have, come from the workspace.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from amlctl.core.diff import folders_above
from amlctl.core.events import EventSink, Note, Warned
from amlctl.core.message import Command, Message, count, some
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState
from amlctl.core.store_keys import (
    attempt_key,
    outputs_tree,
    record_key,
)
from amlctl.errors import AmlctlError, IntegrityError, NotFound, RightsError, ServiceUnavailable, UsageError
from amlctl.localfs.atomic import remove_left_behind, temporary_name
from amlctl.localfs.disk_errors import disk_error
from amlctl.localfs.locks import exclusive
from amlctl.localfs.project import Project
from amlctl.localfs.read_file import file_content_id
from amlctl.localfs.target import TargetFolders
from amlctl.localfs.wildmatch import path_filter
from amlctl.operations.context import Context, Document
from amlctl.operations.logs import collapsed_log
from amlctl.operations.runs import RunAt, each_of_sweep
from amlctl.parallel import ended_by_interrupt, for_each
from amlctl.runs.fetched import FetchedFiles
from amlctl.runs.records import load_record, read_failure
from amlctl.runs.tree import read_tree_index, restore_tree
from amlctl.stores.contract import Store, is_valid_key
from amlctl.workspaces.contract import RunFile, Workspace

_WORKERS = 8
_NAMED = 3
"""Kept files that the warning names; the result has all."""


@dataclass(frozen=True)
class FetchResult(Document):
    """`files` and `bytes` of the run (that match), and what was downloaded now.

    `status` is that of the run before the fetch: an active run may have more later. `kept` are files that differ from
    the run's because they were changed here.
    """

    run: str
    status: str
    to: str
    files: int
    bytes: int
    downloaded_files: int
    downloaded_bytes: int
    seconds: float
    kept: Sequence[str] = ()


def fetch(
    context: Context,
    run: str,
    *,
    to: Path | None = None,
    include: Sequence[str] = (),
    with_logs: bool = False,
    is_unlisted: bool = False,
) -> FetchResult:
    """Download the outputs of `run`; with `with_logs` also its logs, into `logs/` of the same folder. Of a sweep those
    of its runs, into a folder for each.

    `is_unlisted`: if the list of outputs is lost or damaged, download what the store has, unverified.
    Raises NotFound (no such run), UsageError (`to` is a file), RightsError, IntegrityError.
    """
    started = time.monotonic()
    project, workspace, sink = context.project, context.workspace, context.sink
    record = workspace.read(run)
    if record.spec.sweep:
        return _fetch_each(context, record, to, include, with_logs=with_logs, is_unlisted=is_unlisted)
    target = to if to is not None else project.outputs_dir / run
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is not a folder", hint="choose another one with --to")
    try:
        target.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(project, run, sink), ended_by_interrupt(context.store):
            job = _Fetch(context, record, target, path_filter(include))
            for node in range(record.spec.instances) if record.spec.job_type is None else ():
                job.bring_outputs(node, is_unlisted=is_unlisted)
            if not job.files and not job.failures and workspace.service is not None:
                # Outputs in a datastore stay there.
                files, own = workspace.service.run_files(run), record.spec.output_places
                job.bring_files([file for file in files if file.path.partition("/")[0] not in own])
            if with_logs:
                job.bring_logs(workspace)
            job.sweep()
        if to is None:
            with contextlib.suppress(OSError):
                target.rmdir()  # where nothing came
    except OSError as error:
        hint = Message(Command("fetch", "--to", "FOLDER", run), " downloads them elsewhere")
        path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else str(target)
        failure = disk_error(error, path, rights_hint=hint)
        raise failure or RightsError(f"{path} cannot be written: {error.strerror or error}", hint=hint) from error
    if include and not job.files:
        sink(Warned(f"run {run} has no outputs matching {', '.join(include)}"))
    seconds = round(time.monotonic() - started, 3)
    shown = shown_path(project, target)
    if job.kept:
        names = some(job.kept, _NAMED)
        again = Command("fetch", "--to", "FOLDER", run)
        sink(Warned(Message(f"kept {names} in {shown}/, changed here; download the run's with: ", again)))
    if not job.failures and (undelivered := _undelivered(context, record)):
        job.failures.append(undelivered)
    if job.failures:
        raise _one_failure(job.failures)
    return FetchResult(
        run, record.status, shown, job.files, job.size, job.new_files, job.new_bytes, seconds, tuple(job.kept)
    )


class _Undelivered(ServiceUnavailable):
    """Of one run: the store answers, and does not have its results."""


def _undelivered(context: Context, record: RunRecord) -> _Undelivered | None:
    """Why the store does not have the results of a run, which wait on this machine. Raises what the store raises."""
    if not (context.settings.workspace().runs_here and record.is_final and record.may_change):
        return None
    stored, error = load_record(context.store, record.run), record.error or {}
    if stored is None or stored.is_final:
        return None
    return _Undelivered(error.get("message", ""), hint=error.get("hint", ""))


def _fetch_each(
    context: Context, sweep: RunRecord, to: Path | None, include: Sequence[str], *, with_logs: bool, is_unlisted: bool
) -> FetchResult:
    """Of all runs of a sweep, before one that fails is reported."""
    started, folder = time.monotonic(), to or context.project.outputs_dir
    done, failures = list[FetchResult](), list[AmlctlError]()
    for run, _ in each_of_sweep([RunAt(sweep.run, context)]):
        target = None if to is None else to / run
        try:
            done.append(fetch(context, run, to=target, include=include, with_logs=with_logs, is_unlisted=is_unlisted))
        except (IntegrityError, NotFound, _Undelivered) as error:
            failures.append(error)
    if failures:
        raise _one_failure(failures)
    return FetchResult(
        sweep.run,
        sweep.status,
        shown_path(context.project, folder),
        files=sum(one.files for one in done),
        bytes=sum(one.bytes for one in done),
        downloaded_files=sum(one.downloaded_files for one in done),
        downloaded_bytes=sum(one.downloaded_bytes for one in done),
        seconds=round(time.monotonic() - started, 3),
        kept=[f"{one.run}/{path}" for one in done for path in one.kept],
    )


@contextlib.contextmanager
def _one_at_a_time(project: Project, run: str, sink: EventSink) -> Iterator[None]:
    """Two fetches of a run at once would overwrite each other's notes. A read-only project has no lock."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, RightsError):
            folder = project.ensure_state_dir() / "runs" / run
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusive(folder / "fetch.lock", f"fetch of {run}", sink))
        yield


def shown_path(project: Project, path: Path) -> str:
    """Relative to the project where it lies inside, else absolute."""
    absolute = path.absolute()
    return (absolute.relative_to(project.root) if absolute.is_relative_to(project.root) else absolute).as_posix()


class _Fetch:
    """One fetch of one run, and what it has done so far."""

    def __init__(
        self,
        context: Context,
        record: RunRecord,
        target: Path,
        include: Callable[[str], bool],
    ) -> None:
        self._store = context.store
        self._may_be_plain = context.workspace.service is not None
        self._record = record
        self._target = target
        self._include = include
        self._sink = context.sink
        self._fetched = FetchedFiles(context.project.state_dir, record.run, target)
        self._taken: set[str] = set()
        self.files = self.size = self.new_files = self.new_bytes = 0
        self.failures: list[AmlctlError] = []

    @property
    def kept(self) -> list[str]:
        return sorted(self._fetched.spared)

    def bring_outputs(self, node: int, *, is_unlisted: bool) -> None:
        """Of the first node into the folder itself, of each other one into a folder in it."""
        run, store = self._record.run, self._store
        tree = outputs_tree(run, node)
        folder = f"{free_name(f'rank-{node}', self._taken)}/" if node else ""
        index, why = None, f"{tree.index_key} is missing in the store"
        try:
            index = read_tree_index(store, tree.index_key)
            is_lost = index is None and self._must_have_list(node)
        except IntegrityError as error:
            is_lost, why = True, error.message
        if index is None:
            stored = unlisted_outputs(store, tree.prefix)
            if is_unlisted:
                self.bring_files(stored, folder=folder)
            elif is_lost and not stored and store.info(record_key(run)) is None:
                hint = Message(Command("runs", "delete", run), " removes it here as well")
                self.failures.append(NotFound(f"run {run} was deleted from the store {store.url}", hint=hint))
            elif is_lost or stored:  # else nothing was saved yet, or the run never started
                self.failures.append(without_list(run, why, stored))
            return
        if folder:
            self._taken.add(folder[:-1])
        else:
            self._taken.update(file.path.partition("/")[0] for file in index.files)
        try:
            done = restore_tree(
                store,
                tree,
                self._fetched,
                index=index,
                below=folder,
                include=lambda path: self._include(folder + path),
                sink=self._sink,
            )
        except IntegrityError as error:
            self.failures.append(error)
            return
        self._add(*done)

    def _must_have_list(self, node: int) -> bool:
        """The runtime writes one before it starts the script; a run that amlctl did not make has none."""
        record, store = self._record, self._store
        if record.status == RunState.COMPLETED:
            return not self._may_be_plain or store.info(record_key(record.run)) is not None
        has_started = record.is_final and store.info(attempt_key(record.run, node)) is not None
        return has_started and read_failure(store, record.run) is None

    def bring_files(self, found: Sequence[RunFile], *, folder: str = "") -> None:
        """Without a list content ids are unknown: size and time tell what is up to date."""
        files = [file for file in found if self._include(folder + file.path)]
        missing = [file for file in files if not _is_here(self._target / folder / file.path, file)]
        missing = [file for file in missing if self._fetched.make_way(folder + file.path)]

        def bring(file: RunFile) -> None:
            self._put(folder + file.path, partial(_download, file))

        for_each(bring, missing, _WORKERS)
        self._fetched.settle({})
        self._taken.update((folder + file.path).partition("/")[0] for file in files)
        sizes = [sum(file.size_bytes for file in some) for some in (files, missing)]
        self._add(len(files), sizes[0], len(missing), sizes[1])

    def bring_logs(self, workspace: Workspace) -> None:
        """Beside the outputs, under a name that no output has."""
        folder = free_name("logs", self._taken)
        if folder != "logs":
            self._sink(Note(f"the run has outputs named logs, so its logs are in {folder}/"))
        for name in workspace.log_names(self._record.run):
            path = f"{folder}/{Path(name).name}"
            is_new = False
            if self._fetched.make_way(path):
                is_new = self._put(path, partial(_copy_log, workspace, self._record.run, name))
            with contextlib.suppress(FileNotFoundError):
                size = (self._target / path).stat().st_size
                self._add(1, size, int(is_new), size if is_new else 0)
        self._fetched.settle({})

    def sweep(self) -> None:
        """Remove temporary files of killed fetches."""
        folders = {str(folder) for path in self._fetched.paths for folder in PurePosixPath(path).parents}
        for folder in folders | {"."}:
            with contextlib.suppress(OSError):
                remove_left_behind(self._target / folder)

    def _put(self, path: str, write: Callable[[Path], object]) -> bool:
        """Make the file appear whole, its content recorded before; False if it is up to date."""
        full = self._target / path
        temporary = self._target / temporary_name()  # where the next fetch looks for what a killed one has left
        try:
            temporary.touch()
            write(temporary)
            content = file_content_id(temporary)
            is_new = not (full.is_file() and file_content_id(full) == content)
            self._fetched.announce({path: [content]})
            with TargetFolders(self._target) as folders:
                return self._fetched.adopt(temporary, path, folders) and is_new
        finally:
            temporary.unlink(missing_ok=True)

    def _add(self, files: int, size: int, new_files: int, new_bytes: int) -> None:
        self.files += files
        self.size += size
        self.new_files += new_files
        self.new_bytes += new_bytes


def free_name(name: str, taken: Collection[str]) -> str:
    """A name that no output has: `logs`, else `amlctl-logs`, `amlctl-logs-2` …"""
    candidate, number = name, 1
    while candidate in taken:
        candidate = f"amlctl-{name}" if number == 1 else f"amlctl-{name}-{number}"
        number += 1
    return candidate


def _one_failure(failures: Sequence[AmlctlError]) -> AmlctlError:
    first = failures[0]
    if len(failures) > 1:
        first.details = (*first.details, *(failure.message for failure in failures[1:]))
    return first


def _is_here(path: Path, file: RunFile) -> bool:
    try:
        stat = path.stat()
    except OSError:
        return False
    return stat.st_size == file.size_bytes and int(stat.st_mtime) == int(file.modified_at)


def _download(file: RunFile, target: Path) -> None:
    file.store.download(file.key, target)
    os.utime(target, (file.modified_at, file.modified_at))


def _copy_log(workspace: Workspace, run: str, name: str, target: Path) -> None:
    with target.open("wb") as file:
        for part in collapsed_log(workspace, run, name):
            file.write(part)


_DETAILS = 20
"""Unlisted files that the error names."""


def unlisted_outputs(store: Store, prefix: str) -> list[RunFile]:
    """What the store has of one node's outputs, unverified; `prefix` is theirs, and their layers (see `runs.tree`) are
    beside it."""
    layer = re.compile(re.escape(prefix[:-1]) + r"(?:\.[0-9]+)?/")
    found: dict[str, RunFile] = {}
    for entry in store.list(prefix[: prefix.rindex("/", 0, -1) + 1]):
        match = layer.match(entry.key)
        path = entry.key[match.end() :] if match else ""
        if path and is_valid_key(path):
            known = found.get(path)
            if known is None or known.modified_at < entry.modified_at:  # the newer one of two layers
                found[path] = RunFile(path, entry.size_bytes, entry.modified_at, store, entry.key)
    folders = {folder for path in found for folder in folders_above(path)}  # a mount leaves an empty blob of each
    return [found[path] for path in sorted(found) if found[path].size_bytes or path not in folders]


def without_list(run: str, why: str, files: Sequence[RunFile]) -> IntegrityError:
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
