"""`fetch`: a run's outputs, from the store into `outputs/<run-id>/`.

Only what is missing or different is downloaded. A file that an earlier fetch has written is replaced where the run has
another one by now; one that was changed here, or that somebody else has put there, is kept, and that is said.
Works while the run is going: the store holds what the runtime saved last. What the store does not have, the workspace
may have kept itself: so also the files of plain Azure ML jobs come.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

from amlctl.core.events import EventSink, Note, Warned
from amlctl.core.message import Command, Message
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState
from amlctl.core.store_keys import attempt_key, first_outputs_prefix, outputs_index_key, outputs_prefix, record_key
from amlctl.core.wording import count
from amlctl.errors import AmlctlError, IntegrityError, RightsError, UsageError
from amlctl.localfs.atomic import remove_left_behind, temporary_beside
from amlctl.localfs.disk_errors import disk_error
from amlctl.localfs.folders import make_folders
from amlctl.localfs.locks import exclusive
from amlctl.localfs.project import Project
from amlctl.localfs.read_file import file_content_id
from amlctl.localfs.target import clear, in_the_way
from amlctl.operations.context import Context
from amlctl.operations.logs import collapsed_log
from amlctl.operations.unlisted_outputs import UnlistedOutputs
from amlctl.parallel import ended_by_interrupt, for_each
from amlctl.runs.fetched import FetchedBelow, FetchedFiles
from amlctl.runs.records import read_failure
from amlctl.runs.tree import read_index, restore_tree
from amlctl.workspaces.contract import KeepsFiles, RunFile, RunFiles, Workspace

_WORKERS = 8
_NAMED = 3
"""Kept files that are named in the message; the result has all."""
_DETAILS = 20
"""Files without a list that are named in the error."""


@dataclass(frozen=True)
class FetchResult:
    """`files` and `bytes` that the run has (of those asked for), and what of it was brought now.

    `status` is that of the run before the look: one that is not final may have more of them later. `kept` are files
    that differ from the run's because they were changed here.
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

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def fetch(
    context: Context,
    run: str,
    *,
    to: Path | None = None,
    include: Sequence[str] = (),
    with_logs: bool = False,
    is_unlisted: bool = False,
) -> FetchResult:
    """Bring the outputs of `run`; with `with_logs` also its logs, into `logs/` of the same folder.

    `is_unlisted`: where the list of outputs is lost or damaged, bring what the store has, unchecked.
    Raises NotFound (no such run), UsageError (`to` is a file), RightsError, IntegrityError.
    """
    started = time.monotonic()
    project, workspace, sink = context.project, context.workspace, context.sink
    record = workspace.read(run)
    target = to if to is not None else project.outputs_dir / run
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is not a folder", hint="choose another one with --to")
    try:
        target.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(project, run, sink), ended_by_interrupt(context.store):
            job = _Fetch(context, record, target, path_filter(include))
            for node in range(record.spec.instances) if record.spec.job_type is None else ():
                job.bring_outputs(node, is_unlisted=is_unlisted)
            if not job.files and not job.failures and isinstance(workspace, KeepsFiles):
                # Outputs with a place of their own stay there.
                own = record.spec.output_places
                job.bring_files(workspace.run_files(run), is_wanted=lambda path: path.partition("/")[0] not in own)
            if with_logs:
                job.bring_logs(workspace)
            job.sweep()
    except OSError as error:
        hint = Message(Command("fetch", "--to", "FOLDER", run), " brings them elsewhere")
        place = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else str(target)
        told = disk_error(error, place, rights_hint=hint)
        raise told or RightsError(f"{place} cannot be written: {error.strerror or error}", hint=hint) from error
    if include and not job.files:
        sink(Warned(f"run {run} has no output that matches {', '.join(include)}"))
    seconds = round(time.monotonic() - started, 3)
    shown = shown_path(project, target)
    if job.kept:
        names = ", ".join(job.kept[:_NAMED]) + (f" and {len(job.kept) - _NAMED} more" if len(job.kept) > _NAMED else "")
        again = Command("fetch", "--to", "FOLDER", run)
        sink(Warned(Message(f"kept, since changed here: {names} in {shown}/; to have those of the run: ", again)))
    if job.failures:
        raise _one_failure(job.failures)
    return FetchResult(
        run, record.status, shown, job.files, job.size, job.new_files, job.new_bytes, seconds, tuple(job.kept)
    )


@contextlib.contextmanager
def _one_at_a_time(project: Project, run: str, sink: EventSink) -> Iterator[None]:
    """What two fetches of a run at once remember would be that of one. A project that cannot be written has no lock."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            folder = project.ensure_state_dir() / "runs" / run
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(exclusive(folder / "fetch.lock", f"fetch of {run}", sink))
        yield


def shown_path(project: Project, path: Path) -> str:
    """Relative to the project where it lies inside, else absolute."""
    absolute = path.absolute()
    return (absolute.relative_to(project.root) if absolute.is_relative_to(project.root) else absolute).as_posix()


def path_filter(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a relative path matches one of the globs; all do where there are none.

    `*` also spans folders (`*.png` is every picture), `**/` may be empty, and a folder means all below it.
    """
    if not patterns:
        return lambda path: True
    wanted = [pattern.removeprefix("./").rstrip("/") for pattern in patterns]

    def matches(path: str) -> bool:
        return any(
            fnmatchcase(path, pattern)
            or fnmatchcase(path, pattern.replace("**/", ""))
            or fnmatchcase(path, f"{pattern}/*")
            for pattern in wanted
        )

    return matches


class _Fetch:
    """One fetch of one run: what it has done so far, and where the names of the product go."""

    def __init__(
        self,
        context: Context,
        record: RunRecord,
        target: Path,
        include: Callable[[str], bool],
    ) -> None:
        self._store = context.store
        self._record = record
        self._target = target
        self._include = include
        self._sink = context.sink
        self._fetched = FetchedFiles(context.project.state_dir, record.run, target)
        self._taken: set[str] = set()
        self.files = self.size = self.new_files = self.new_bytes = 0
        self.kept: list[str] = []
        self.failures: list[AmlctlError] = []

    def bring_outputs(self, node: int, *, is_unlisted: bool) -> None:
        """Those of the first node into the folder itself, those of each other one into a folder of it."""
        run, store = self._record.run, self._store
        prefix, index_key = outputs_prefix(run, node), outputs_index_key(run, node)
        folder = f"{free_name(f'rank-{node}', self._taken)}/" if node else ""
        try:
            index = read_index(store, index_key)
        except IntegrityError as error:
            if is_unlisted:
                self.bring_files(UnlistedOutputs(store, prefix), folder=folder)
            else:
                self.failures.append(_without_list(run, error.message, UnlistedOutputs(store, prefix)))
            return
        if index is None:
            self._bring_without_list(node, folder, UnlistedOutputs(store, prefix), is_unlisted=is_unlisted)
            return
        if folder:
            self._taken.add(folder[:-1])
        else:
            self._taken.update(file.path.partition("/")[0] for file in index)
        if folder and not self._make_way(folder):
            return
        try:
            done = restore_tree(
                store,
                prefix,
                index_key,
                self._target / folder,
                include=lambda path: self._include(folder + path),
                guard=FetchedBelow(self._fetched, folder),
                first_prefix=first_outputs_prefix(run, node),
                subject=run,
                sink=self._sink,
            )
        except IntegrityError as error:
            self.failures.append(error)
            return
        self.kept.extend(folder + path for path in done.spared)
        self._add(done.files, done.size_bytes, done.downloaded_files, done.downloaded_bytes)

    def _bring_without_list(self, node: int, folder: str, stored: UnlistedOutputs, *, is_unlisted: bool) -> None:
        """Nothing was saved yet, or the run never began; unless there is evidence of a list that was lost."""
        found = stored.files()
        if is_unlisted:
            self.bring_files(stored, folder=folder)
        elif found or self._must_have_list(node):
            key = outputs_index_key(self._record.run, node)
            self.failures.append(_without_list(self._record.run, f"{key} is missing in the store", stored))

    def _must_have_list(self, node: int) -> bool:
        """The runtime writes one before it starts the script, and a run that is not ours has none."""
        record, store = self._record, self._store
        if record.status == RunState.COMPLETED:
            return store.info(record_key(record.run)) is not None
        has_started = record.is_final and store.info(attempt_key(record.run, node)) is not None
        return has_started and read_failure(store, record.run) is None

    def bring_files(
        self, run_files: RunFiles, *, folder: str = "", is_wanted: Callable[[str], bool] = lambda path: True
    ) -> None:
        """What has no list has no content ids: size and time say what is here already."""
        files = [file for file in run_files.files() if self._include(folder + file.path) and is_wanted(file.path)]
        missing = [file for file in files if not _is_here(self._target / folder / file.path, file)]
        missing = [file for file in missing if self._make_way(folder + file.path)]

        def bring(file: RunFile) -> None:
            self._put(folder + file.path, lambda temporary: run_files.download(file, temporary))

        for_each(bring, missing, _WORKERS)
        self._fetched.settle({})
        self._taken.update((folder + file.path).partition("/")[0] for file in files)
        sizes = [sum(file.size_bytes for file in some) for some in (files, missing)]
        self._add(len(files), sizes[0], len(missing), sizes[1])

    def bring_logs(self, workspace: Workspace) -> None:
        """Beside the outputs, whatever they are called."""
        folder = free_name("logs", self._taken)
        if folder != "logs":
            self._sink(Note(f"the run has outputs called logs, so its logs go to {folder}/"))
        for name in workspace.log_names(self._record.run):
            path = f"{folder}/{Path(name).name}"
            is_new = False
            if self._make_way(path):
                is_new = self._put(path, partial(_copy_log, workspace, self._record.run, name))
            with contextlib.suppress(FileNotFoundError):
                size = (self._target / path).stat().st_size
                self._add(1, size, int(is_new), size if is_new else 0)
        self._fetched.settle({})

    def sweep(self) -> None:
        """Temporary files of fetches that were killed."""
        folders = {(self._target / path).parent for path in self._fetched.paths} | {self._target}
        for folder in folders:
            with contextlib.suppress(OSError):
                remove_left_behind(folder)

    def _make_way(self, path: str) -> bool:
        """Whether a file may be written there; nothing of another kind stands there any more."""
        found = in_the_way(self._target, path)
        if not all(self._fetched.may_replace(one) for one in found.files):
            self.kept.append(found.top)
            return False
        if found.must_go:
            clear(self._target, found.top)
        return True

    def _put(self, path: str, write: Callable[[Path], object]) -> bool:
        """Make the file appear whole, its content recorded before; False where it is the same already."""
        full = self._target / path
        make_folders(full.parent)
        temporary = temporary_beside(full)
        try:
            temporary.touch()
            write(temporary)
            content = file_content_id(temporary)
            is_new = not (full.is_file() and file_content_id(full) == content)
            self._fetched.announce({path: [content]})
            if not self._fetched.may_replace(path):  # edited here during the download
                self.kept.append(path)
                return False
            temporary.replace(full)
        finally:
            temporary.unlink(missing_ok=True)
        return is_new

    def _add(self, files: int, size: int, new_files: int, new_bytes: int) -> None:
        self.files += files
        self.size += size
        self.new_files += new_files
        self.new_bytes += new_bytes


def free_name(name: str, taken: Collection[str]) -> str:
    """A name of the product's beside those of the user's outputs: `logs`, else `amlctl-logs`, `amlctl-logs-2` …"""
    candidate, number = name, 1
    while candidate in taken:
        candidate = f"amlctl-{name}" if number == 1 else f"amlctl-{name}-{number}"
        number += 1
    return candidate


def _without_list(run: str, why: str, stored: UnlistedOutputs) -> IntegrityError:
    files = stored.files()
    if not files:
        return IntegrityError(
            f"the list of outputs of run {run} is lost: {why}, and the store has none of its outputs",
            hint=Command("logs", run),
        )
    names = [file.path for file in files]
    more = [f"and {len(names) - _DETAILS} more"] if len(names) > _DETAILS else []
    return IntegrityError(
        f"the list of outputs of run {run} is lost: {why}; the store still has {count(len(names), 'file')}",
        hint=Command("fetch", "--unlisted", run),
        details=[*names[:_DETAILS], *more],
    )


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


def _copy_log(workspace: Workspace, run: str, name: str, target: Path) -> None:
    with target.open("wb") as file:
        for part in collapsed_log(workspace, run, name):
            file.write(part)
