"""`fetch`: a run's outputs, from the store into `outputs/<run-id>/`.

Only what is missing or different is brought. A file that an earlier fetch has written is replaced where the run has
another one by now; one that was changed here, or that somebody else has put there, is kept, and that is said.
Works while the run is going: the store holds what the runtime saved last. What the store does not have, the workspace
may have kept itself: so also the files of plain Azure ML jobs come.
"""

from __future__ import annotations

import filecmp
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from amlctl.core.events import EventSink, Warned, null_sink
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState
from amlctl.errors import IntegrityError, RightsError, UsageError
from amlctl.localfs.atomic import temporary_beside
from amlctl.localfs.disk_errors import disk_error
from amlctl.localfs.fetched import FetchedFiles
from amlctl.localfs.project import Project
from amlctl.operations.logs import collapsed_log
from amlctl.runtime.run_keys import outputs_index_key, outputs_prefix, record_key
from amlctl.stores.contract import Store
from amlctl.transfer.interrupt import ended_by_interrupt
from amlctl.transfer.tree import restore_tree
from amlctl.workspaces.contract import KeepsFiles, RunFile, RunFiles, Workspace

_WORKERS = 8
_NAMED = 3
"""Kept files that are told by name; the result has all."""


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
    project: Project,
    store: Store,
    workspace: Workspace,
    run: str,
    *,
    to: Path | None = None,
    include: Sequence[str] = (),
    with_logs: bool = False,
    sink: EventSink = null_sink,
) -> FetchResult:
    """Bring the outputs of `run`; with `with_logs` also its logs, into `logs/` of the same folder.

    Raises NotFound (no such run), UsageError (`to` is a file), RightsError, IntegrityError.
    """
    started = time.monotonic()
    record = workspace.read(run)
    target = to if to is not None else project.outputs_dir / run
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is not a folder", hint="choose another one with --to")
    try:
        target.mkdir(parents=True, exist_ok=True)
        project.ensure_state_dir()
        counts = (0, 0, 0, 0)
        kept: list[str] = []
        fetched = FetchedFiles(project.state_dir, run, target)
        with ended_by_interrupt(store):
            for node in range(record.instances):
                counts = _add(
                    counts, _fetch_outputs(store, run, node, target, path_filter(include), fetched, kept, sink)
                )
            if not counts[0] and isinstance(workspace, KeepsFiles):
                wanted = path_filter(include)

                def belongs_here(path: str) -> bool:  # outputs with a place of their own stay there
                    return wanted(path) and path.partition("/")[0] not in record.output_places

                counts = _fetch_files(workspace.run_files(run), target, belongs_here, fetched, kept)
            if not counts[0] or record.instances > 1:
                _refuse_lost_lists(store, record)
            if with_logs:
                counts = _add(counts, _fetch_logs(workspace, run, target / "logs"))
    except OSError as error:
        hint = f"amlctl fetch --to FOLDER {run} brings them elsewhere"
        told = disk_error(error, str(target), rights_hint=hint)
        raise told or RightsError(f"{target} cannot be written: {error.strerror or error}", hint=hint) from error
    files, size, new_files, new_bytes = counts
    if include and not files:
        sink(Warned(f"run {run} has no output that matches {', '.join(include)}"))
    seconds = round(time.monotonic() - started, 3)
    shown = shown_path(project, target)
    if kept:
        names = ", ".join(kept[:_NAMED]) + (f" and {len(kept) - _NAMED} more" if len(kept) > _NAMED else "")
        again = f"amlctl fetch --to FOLDER {run}"
        sink(Warned(f"kept, since changed here: {names} in {shown}/; to have those of the run: {again}"))
    return FetchResult(run, record.status, shown, files, size, new_files, new_bytes, seconds, tuple(kept))


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


def _refuse_lost_lists(store: Store, record: RunRecord) -> None:
    """A run of ours that Completed has left a list of its outputs, even an empty one. Raises IntegrityError."""
    if record.status != RunState.COMPLETED.value or store.info(record_key(record.run)) is None:
        return
    lists = [outputs_index_key(record.run, node) for node in range(record.instances)]
    lost = [key for key in lists if store.info(key) is None]
    if lost:
        raise IntegrityError(
            f"the list of what run {record.run} has put out is missing in {store.url}",
            hint=f"amlctl submit --from {record.run} runs it again; what is there: amlctl store verify",
            details=lost,
        )


Counts = tuple[int, int, int, int]


def _fetch_outputs(
    store: Store,
    run: str,
    node: int,
    target: Path,
    include: Callable[[str], bool],
    fetched: FetchedFiles,
    kept: list[str],
    sink: EventSink,
) -> Counts:
    prefix, index_key = outputs_prefix(run, node), outputs_index_key(run, node)
    if store.info(index_key) is None:
        return (0, 0, 0, 0)  # nothing was saved yet, or the run never began
    # As in the store: those of the first node, and beside them a folder for each other one.
    folder = prefix.removeprefix(outputs_prefix(run))
    done = restore_tree(
        store,
        prefix,
        index_key,
        target / folder,
        include=lambda path: include(folder + path),
        spare=lambda path: fetched.is_users(folder + path),
        subject=run,
        sink=sink,
    )
    fetched.remember(folder + path for path in done.restored)
    kept.extend(folder + path for path in done.spared)
    return (done.files, done.size_bytes, done.downloaded_files, done.downloaded_bytes)


def _fetch_files(
    run_files: RunFiles, target: Path, include: Callable[[str], bool], fetched: FetchedFiles, kept: list[str]
) -> Counts:
    """What the workspace keeps itself has no content ids: size and time tell what is here already."""
    files = [file for file in run_files.files() if include(file.path)]
    different = [file for file in files if not _is_here(target / file.path, file)]
    spared = {file.path for file in different if fetched.is_users(file.path)}
    missing = [file for file in different if file.path not in spared]

    def bring(file: RunFile) -> None:
        path = target / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(path)
        try:
            temporary.touch()
            run_files.download(file, temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    with ThreadPoolExecutor(_WORKERS) as pool:
        for _ in pool.map(bring, missing):
            pass
    fetched.remember(file.path for file in files if file.path not in spared)
    kept.extend(sorted(spared))
    sizes = [sum(file.size_bytes for file in some) for some in (files, missing)]
    return (len(files), sizes[0], len(missing), sizes[1])


def _is_here(path: Path, file: RunFile) -> bool:
    try:
        stat = path.stat()
    except OSError:
        return False
    return stat.st_size == file.size_bytes and int(stat.st_mtime) == int(file.modified_at)


def _add(first: Counts, second: Counts) -> Counts:
    return (first[0] + second[0], first[1] + second[1], first[2] + second[2], first[3] + second[3])


def _fetch_logs(workspace: Workspace, run: str, folder: Path) -> Counts:
    counts = (0, 0, 0, 0)
    for name in workspace.log_names(run):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / Path(name).name
        temporary = temporary_beside(path)
        try:
            size = _copy_log(workspace, run, name, temporary)
            is_same = path.is_file() and filecmp.cmp(path, temporary, shallow=False)
            if not is_same:
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        counts = _add(counts, (1, size, 0 if is_same else 1, 0 if is_same else size))
    return counts


def _copy_log(workspace: Workspace, run: str, name: str, target: Path) -> int:
    with target.open("wb") as file:
        return sum(file.write(part) for part in collapsed_log(workspace, run, name))
