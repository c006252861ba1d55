"""`doctor`: check everything that a submit requires; each finding has a suggested fix.

A check that depends on a failed one is skipped: one cause, one line.
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import amlctl
from amlctl.config.compute_file import read_compute_files
from amlctl.core.compute import ClusterTarget
from amlctl.core.events import null_sink
from amlctl.core.message import Command, Message, count, size
from amlctl.core.settings import Settings
from amlctl.errors import AmlctlError, CheckFailed
from amlctl.localfs.code_rules import code_rules
from amlctl.localfs.disk_errors import disk_error
from amlctl.localfs.git import REFUSED, ask_git
from amlctl.localfs.project import Project
from amlctl.localfs.scan import scan
from amlctl.operations.clean import space_message
from amlctl.operations.context import Context
from amlctl.operations.environment import project_environment
from amlctl.runs.code import code_sizes, large_code
from amlctl.stores.contract import Store
from amlctl.workspaces.contract import Check

LEAST_FREE_BYTES = 1 << 30
"""An environment or new packs soon use up less free space than this."""

CLOCK_LIMIT_S = 60.0
"""Times of the store and of this machine are compared to find what is younger than a day."""


def run_checks(find_project: Callable[[], Project], open_context: Callable[[], Context]) -> list[Check]:
    """All findings in order; an error of an opener is a finding, too."""
    found = list(_own_checks())

    def has_failed(*names: str) -> bool:
        return any(check.name in names and not check.ok for check in found)

    try:
        project = find_project()
        found.append(Check("project", True, str(project.root)))
        found.append(_tried("settings", lambda: _settings_message(open_context().settings)))
        found += _project_checks(project)
        if has_failed("settings"):
            return found
        context = open_context()
        limit_bytes = context.settings.cache.limit
        found.append(_tried("space", lambda: space_message(project, context.disk, limit_bytes)))
        found += [_failed(f"workspace {name}", error) for name, error in context.settings.broken.items()]
        found += _workspace_checks(context)
        if has_failed("login", "workspace"):
            return found
        known = {check.message for check in found if not check.ok}
        found += [check for check in _store_checks(context) if check.message not in known]
        found.append(_tried("environment", lambda: _environment_message(context)))
    except AmlctlError as error:
        found.append(_failed("project", error))
    return found


def _tried(name: str, action: Callable[[], str]) -> Check:
    """A finding from an action that returns a message, or raises."""
    try:
        return Check(name, True, action())
    except AmlctlError as error:
        return _failed(name, error)
    except OSError as error:
        place = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
        found = disk_error(error, place)
        return Check(name, False, str(error)) if found is None else _failed(name, found)


def _failed(name: str, error: AmlctlError) -> Check:
    return Check(name, False, error.message, error.hint)


def _own_checks() -> Iterator[Check]:
    yield Check("amlctl", True, f"{amlctl.__version__}, Python {platform.python_version()}, {platform.platform()}")
    git = shutil.which("git")
    yield Check("git", True, git or "not installed: runs record no commit", "" if git else "install git")


def _settings_message(settings: Settings) -> str:
    chosen = settings.workspace()
    return f"workspace {chosen.name} ({chosen.compute}), experiment {settings.experiment}"


def _project_checks(project: Project) -> Iterator[Check]:
    for name, look in (
        ("folders", _folders_message),
        ("local state", _state_message),
        ("code", _code_message),
        ("disk", _disk_message),
        ("compute", _compute_message),
    ):
        yield _tried(name, partial(look, project))


def _folders_message(project: Project) -> str:
    """Whether all lie where they belong."""
    pipeline, beside = project.pipeline_dir, (project.data_blobs_dir, project.outputs_dir)
    if not pipeline.is_dir():
        raise CheckFailed("pipeline/ not found", hint=Command("init"))
    for folder in (*beside, project.state_dir):
        if folder.exists() and folder.resolve().is_relative_to(pipeline.resolve()):
            hint = f"move {folder.name}/ out of pipeline/: it would be sent with every run"
            raise CheckFailed(f"{folder.name}/ lies in pipeline/", hint=hint)
    inside = [path for path in ("data_blobs", "outputs") if (pipeline / path).is_dir()]
    if inside:
        hint = f"move it to {project.root}, or name it in .amlctlignore"
        raise CheckFailed(f"pipeline/{inside[0]}/ would be sent with every run", hint=hint)
    missing = [folder.name for folder in beside if not folder.is_dir()]
    return (
        f"pipeline/; {', '.join(missing)} will be made when needed" if missing else "pipeline/, data_blobs/, outputs/"
    )


def _state_message(project: Project) -> str:
    project.ensure_state_dir()

    def code(*arguments: str) -> int | None:
        answer = ask_git(project.root, *arguments)
        if answer is not None and answer.allowing:
            raise CheckFailed(REFUSED, hint=answer.allowing)
        return None if answer is None else answer.code

    # An ignored path is 0, one that is not is 1; without git or repository nothing can be committed.
    if code("check-ignore", "--quiet", ".amlctl/runs") == 1:
        raise CheckFailed(".amlctl/ is not ignored by git", hint="echo '*' > .amlctl/.gitignore")
    if code("ls-files", "--error-unmatch", ".amlctl") == 0:
        raise CheckFailed("files of .amlctl/ are committed", hint="git rm -r --cached .amlctl")
    return ".amlctl/ can be written and is not committed"


def _code_message(project: Project) -> str:
    if not project.pipeline_dir.is_dir():
        return "no scripts yet"
    sizes = code_sizes(scan(project.pipeline_dir, code_rules(project)))
    large = large_code(sizes)
    if large is not None:
        lines = "; ".join(f"echo '{line}' >> .amlctlignore" for line in large.ignore_lines)
        raise CheckFailed(large.message, hint=f"move it to data_blobs/, or: {lines}")
    return f"{count(len(sizes), 'file')}, {size(sum(sizes.values()))}"


def _disk_message(project: Project) -> str:
    free = shutil.disk_usage(project.root).free
    message = f"{free / 1e9:.1f} GB free at {project.root}"
    if free < LEAST_FREE_BYTES:
        look = Message("free some space; ", Command("store", "gc"), " shows what the store does not need")
        raise CheckFailed(message, hint=look)
    return message


def _compute_message(project: Project) -> str:
    files = read_compute_files(project)
    if files.broken:
        more = f" (and {len(files.broken) - 1} more)" if len(files.broken) > 1 else ""
        raise CheckFailed(files.broken[0].error.message + more, hint=files.broken[0].error.hint)
    names = [target.name for target in files.targets]
    return f"compute/ has {', '.join(names)}" if names else "no files in compute/: one local slot"


def _workspace_checks(context: Context) -> Iterator[Check]:
    wanted = context.settings.workspace().default_compute
    target = None
    with suppress(AmlctlError):  # the check of compute/ reports it
        target = read_compute_files(context.project).find(wanted) if wanted else None
    try:
        yield from context.workspace.checks(target if isinstance(target, ClusterTarget) else None)
    except AmlctlError as error:
        yield _failed("workspace", error)


def _store_checks(context: Context) -> Iterator[Check]:
    try:
        store = context.store
        skew = _probe(store)
    except AmlctlError as error:
        yield _failed("store", error)
        return
    yield Check("store", True, f"{store.url} can be read and written")
    is_near = abs(skew) <= CLOCK_LIMIT_S
    words = "agrees with the store's" if is_near else f"is {abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} it"
    yield Check("clock", is_near, f"this machine's clock {words}", "" if is_near else "set the clock (NTP)")


def _probe(store: Store) -> float:
    """Write, read and delete a value; seconds by which the store's clock is ahead of ours."""
    key, data = f"doctor/{secrets.token_hex(8)}", secrets.token_bytes(64)
    before = time.time()
    store.put(key, data)
    try:
        after = time.time()
        entry = store.info(key)
        if entry is None or store.get(key, length=len(data) + 1) != data:
            raise CheckFailed(f"{store.url} does not give back what was written to it")
        return entry.modified_at - min(max(entry.modified_at, before), after)
    finally:
        store.delete(key)


def _environment_message(context: Context) -> str:
    spec, _ = project_environment(context.project, sink=null_sink)
    workspace = context.workspace
    info = workspace.environment(spec)
    if info.is_ready:
        return f"{info.id} is ready ({info.tool}): {info.location}"
    workspace.check_environment(spec, null_sink)
    return Message(f"{info.tool} makes it with the first submit, or now: ", Command("env", "prepare"))
