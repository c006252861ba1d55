"""What `from amlctl import sync, submit, …` gives: the commands as functions, for scripts and notebooks.

A function does what its command does, with the same settings and defaults, and returns what the command prints as JSON
(`to_json`). Nothing is printed and nothing is asked: progress goes to `sink` as events (`amlctl.core.events`), from any
thread, and what the command would report as an error is raised (`amlctl.errors`).

`project` is a folder of the project (default: AMLCTL_PROJECT, then the current folder), `workspace` a name in its
settings. Relative paths start from the current folder. RUN is an id, its beginning, `@last` or `@2`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from amlctl.core.events import EventSink, null_sink
from amlctl.core.message import Command, Message
from amlctl.core.run import RunRecord
from amlctl.core.secret_names import masked
from amlctl.core.sweep import Sweep, combined
from amlctl.errors import AmlctlError, Interrupted, UsageError
from amlctl.operations import runs as run_operations
from amlctl.operations.argument_types import with_checked_types
from amlctl.operations.environment import chosen_environment
from amlctl.operations.fetch import FetchResult
from amlctl.operations.fetch import fetch as fetch_operation
from amlctl.operations.find_run import located
from amlctl.operations.logs import FollowOptions, InterruptChoice, follow, log_pieces
from amlctl.operations.submit.result import SubmitResult
from amlctl.operations.submit.sources import SubmitRequest
from amlctl.operations.submit.submit import submit as submit_operation
from amlctl.operations.sync.pull import pull as pull_operation
from amlctl.operations.sync.sync import SyncOptions, SyncResult, dry_run
from amlctl.operations.sync.sync import sync as sync_operation
from amlctl.wiring import App, open_app

_Folder = str | os.PathLike[str]
_LAST = "@last"


@with_checked_types
def sync(
    path: _Folder,
    *,
    pull: bool = False,
    snapshot: str | None = None,
    on_conflict: Literal["ours", "theirs"] | None = None,
    yes: bool = False,
    checksum: bool = False,
    is_dry_run: bool = False,
    project: _Folder | None = None,
    workspace: str | None = None,
    sink: EventSink = null_sink,
) -> SyncResult:
    """Upload a dataset, only what changed; `pull` downloads it, or restores `snapshot`.

    `on_conflict` keeps the local version (`ours`) or that of the store (`theirs`) where both sides changed a file.
    `yes` confirms deletions. `checksum` reads every file, whatever its times. Raises Conflict, NeedsConfirmation,
    NotFound, RightsError, ServiceUnavailable and others.
    """
    if snapshot is not None and not pull:
        raise UsageError("snapshot requires pull=True")
    with _opened(project, workspace, sink) as app:
        options = replace(
            SyncOptions.of(app.settings.sync),
            checksum=checksum,
            ours=on_conflict == "ours",
            theirs=on_conflict == "theirs",
            yes=yes,
        )
        dataset = app.project.dataset_name(os.fspath(path), Path.cwd())
        if pull:
            return pull_operation(app, dataset, options, snapshot=snapshot, is_dry_run=is_dry_run)
        return (dry_run if is_dry_run else sync_operation)(app, dataset, options)


@with_checked_types
def submit(
    script: _Folder = "",
    *,
    config: _Folder | None = None,
    overrides: Mapping[str, Any] | None = None,
    sweep: Mapping[str, Sequence[Any]] | None = None,
    parallel: int | None = None,
    metric: str = "",
    arguments: Sequence[Any] = (),
    datasets: Sequence[str] = (),
    produces: Sequence[str] = (),
    register: str = "",
    variables: Mapping[str, str] | None = None,
    secrets: Sequence[str] = (),
    env_from: str | None = None,
    compute: str | None = None,
    instances: int | None = None,
    processes: int | None = None,
    timeout_s: float | None = None,
    name: str | None = None,
    experiment: str | None = None,
    tags: Mapping[str, str] | None = None,
    from_run: str | None = None,
    after: Sequence[str] = (),
    is_needed_only: bool = False,
    is_detached: bool = False,
    fetch_outputs: bool | None = None,
    project: _Folder | None = None,
    workspace: str | None = None,
    sink: EventSink = null_sink,
) -> SubmitResult:
    """Run a script, or repeat `from_run`, and wait for its end and its outputs, unless `is_detached`.

    `overrides` change values of the config by dotted key: `{"training.epochs": 3}`. A `sweep` has several for each:
    `{"lr": [0.1, 0.3]}` makes a run for every combination, `parallel` at a time; `results` of what is returned has
    their metrics and the best by `metric`. `register` names the data asset of the produced dataset. `secrets` names
    variables whose values are not recorded. `env_from` is `active`, `current` or the path of an environment.
    `is_needed_only` returns an equal run that Completed instead. The log comes as `LogText` events. Raises RunFailed
    where the run fails or is canceled, and what a check raises before there is a run. Ctrl-C cancels the run, or leaves
    it running where `submit.on_interrupt` is `detach`, which raises Interrupted.
    """
    if parallel is not None and parallel < 1:
        raise UsageError("parallel must be a whole number from 1")
    chosen = chosen_environment(env_from, Path.cwd())
    spec = {
        "script": os.fspath(script) or None,
        "config": None if config is None else os.fspath(config),
        "datasets": list(datasets) or None,
        "arguments": tuple(map(str, arguments)),
        "experiment": experiment,
        "compute": compute,
        "processes": processes,
        "instances": instances,
        "produces": list(produces) or None,
        "environment": None if chosen is None else chosen.id,
        "variables": dict(variables or {}),
        "timeout_s": timeout_s,
        "tags": dict(tags or {}),
        "name": name,
    }
    with _opened(project, workspace, sink) as app:
        fixed = {key: [_json(key, value)] for key, value in (overrides or {}).items()}
        varied = {key: [_json(key, value) for value in values] for key, values in (sweep or {}).items()}
        request = SubmitRequest(
            spec,
            overrides=[] if varied else [f"{key}={value}" for key, (value,) in fixed.items()],
            sweep=Sweep(combined({**fixed, **varied}), parallel, metric) if varied else None,
            secrets=tuple(secrets),
            from_run=from_run,
            after=tuple(after),
            register=register,
            is_needed_only=is_needed_only,
        )
        detaches = app.settings.submit.on_interrupt == "detach"
        result = submit_operation(
            app,
            request,
            is_detached=is_detached,
            fetch_outputs=app.settings.submit.fetch if fetch_outputs is None else fetch_outputs,
            following=FollowOptions(lambda: InterruptChoice.DETACH if detaches else InterruptChoice.CANCEL),
        )
        if result.failure is not None:
            raise result.failure
        if not is_detached:
            _require_final(result.record)
        return result


@with_checked_types
def fetch(
    run: str = _LAST,
    *,
    to: _Folder | None = None,
    include: Sequence[str] = (),
    with_logs: bool = False,
    project: _Folder | None = None,
    workspace: str | None = None,
    sink: EventSink = null_sink,
) -> FetchResult:
    """Download a run's outputs, only what is missing, into `outputs/RUN` or the folder `to`; works while it is active.

    `include` are globs. Raises NotFound, RightsError, IntegrityError, ServiceUnavailable.
    """
    with _opened(project, workspace, sink) as app:
        run_id, app = located(app, run, is_in_use=workspace is not None)
        target = None if to is None else Path.cwd() / to
        return fetch_operation(app, run_id, to=target, include=include, with_logs=with_logs)


@with_checked_types
def logs(
    run: str = _LAST,
    *,
    name: str | None = None,
    tail: int | None = None,
    is_following: bool = False,
    project: _Folder | None = None,
    workspace: str | None = None,
    sink: EventSink = null_sink,
) -> str:
    """A run's log so far, or its last `tail` lines; `name` is that of another log of the run.

    `is_following`: first wait until the run has finished, while its log comes as `LogText` events. Raises NotFound,
    ServiceUnavailable; Ctrl-C leaves the run running and raises Interrupted.
    """
    with _opened(project, workspace, sink) as app:
        run_id, app = located(app, run, is_in_use=workspace is not None)
        if is_following:
            _require_final(follow(app, run_id, name=name))
        return "".join(log_pieces(app.workspace, run_id, tail=tail, name=name))


@with_checked_types
def list_runs(
    *,
    experiment: str | None = None,
    project: _Folder | None = None,
    workspace: str | None = None,
    sink: EventSink = null_sink,
) -> list[RunRecord]:
    """All runs, newest first, or those of an experiment: what they ran, how they ended, their metrics."""
    with _opened(project, workspace, sink) as app:
        found = run_operations.list_runs(app if experiment is None else app.in_experiment(experiment))
        return [record for record in found if experiment in (None, record.spec.experiment)]


def _json(key: str, value: object) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        hint = "use numbers, strings, booleans, None, and lists and dicts of them"
        raise UsageError(f"the value for {key} cannot be written into a config: {error}", hint=hint) from error


def _require_final(record: RunRecord) -> None:
    """Raises Interrupted where the user detached."""
    if not record.is_final:
        raise Interrupted(f"run {record.run} is still active", hint=Command("logs", record.run, "-f"))


def _without_secrets(text: str) -> str:
    """Commands in it stay commands, where they have none."""
    shown = masked(text)
    return text if shown == text else shown


@contextmanager
def _opened(project: _Folder | None, workspace: str | None, sink: EventSink) -> Iterator[App]:
    """An error has no secrets, as on the terminal; its hint becomes a note, which a traceback shows."""
    try:
        folder = None if project is None else Path(project)
        yield open_app(Path.cwd(), os.environ, project=folder, workspace=workspace, sink=sink)
    except AmlctlError as error:
        error.message, error.hint = _without_secrets(error.message), _without_secrets(error.hint)
        error.args = (error.message,)
        error.details = tuple(map(_without_secrets, error.details))
        if error.hint:
            error.add_note(Message("hint: ", error.hint))
        raise
