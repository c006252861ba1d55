"""Why a run failed and what to do next, said once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from amlctl.core.message import Command, Message
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState
from amlctl.core.script_errors import explained
from amlctl.errors import AmlctlError, RunFailed
from amlctl.localfs.project import Project
from amlctl.operations.context import Context
from amlctl.operations.logs import code_paths, log_pieces

_READ_LINES = 40
_SHOWN_LINES = 8
_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_CURRENT = "current"


def run_failure(context: Context, record: RunRecord, *, hint: str, shown_log: str | None = None) -> RunFailed | None:
    """The error of a command that has followed a run; None if it Completed or is still active.

    `shown_log`: the log that the user has just seen; the last lines of another one that says why are details.
    """
    if not record.is_final or record.status == RunState.COMPLETED:
        return None
    error = record.error or {}
    message, details = error.get("message", ""), list[str]()
    if record.spec.sweep:
        hint = "the same command with --needed runs what is left"
    hint = error.get("hint") or hint
    if error.get("kind") == "script":
        name = error.get("log")
        lines = _last_lines(context, record, name)
        found = explained(lines)
        if found.reason:
            message = f"{message}: {found.reason}"
        if name is not None and name != shown_log:
            details = list(lines[-_SHOWN_LINES:])
        # Where to read what the script said, unless it is known what to do.
        hint = _add(record, found.package) if found.package else hint
        hint = _send(context.project, record, found.file) or hint
    return RunFailed(
        f"run {record.run} is {record.status}" + (f": {message}" if message else ""), hint=hint, details=details
    )


def _add(record: RunRecord, package: str) -> str:
    if record.spec.environment == _CURRENT:
        return f"pip install {package}"
    return Message(f"add {package} to pptdaml.yaml, then ", Command("submit", record.spec.script.rpartition("/")[2]))


def _send(project: Project, record: RunRecord, file: str) -> str:
    """What to do about a file that the script did not find but this project has; else empty."""
    parts = PurePosixPath(file).parts
    try:
        if not parts or ".." in parts or PurePosixPath(file).is_absolute() or not (project.root / file).exists():
            return ""
    except OSError:
        return ""
    script, data = record.spec.script.rpartition("/")[2], project.data_blobs_dir.name
    if parts[0] == data:
        return Command("submit", script, "--dataset", "/".join(parts[:3]))
    wanted = f"{data}/working/{parts[0]}"
    why = f"{parts[0]} is not sent with a run; move it to {wanted} and read it there, then "
    return Message(why, Command("submit", script, "--dataset", wanted))


def _last_lines(context: Context, record: RunRecord, name: str | None) -> Sequence[str]:
    try:
        pieces = log_pieces(context.workspace, record.run, tail=_READ_LINES, name=name)
        text = code_paths(context.project, record.run).feed("".join(pieces), is_final=True)
    except (AmlctlError, OSError):
        return ()
    return [_COLOR.sub("", line) for line in text.splitlines() if line.strip()]
