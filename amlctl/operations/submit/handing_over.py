"""`submit sweep.yml`: a job file that is not a command job goes to a workspace whose service takes it as it is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from amlctl.core.events import RunCreated
from amlctl.core.run import RunRecord, RunSpec
from amlctl.core.run_id import new_run_id
from amlctl.core.run_state import RunState
from amlctl.core.secret_names import mask_command_line
from amlctl.errors import UsageError
from amlctl.operations.context import Context
from amlctl.operations.submit.job_request import JobFile
from amlctl.operations.submit.request import SubmitRequest
from amlctl.runs.records import note_made
from amlctl.workspaces.contract import TakesJobFiles

_FOR_COMMANDS = {
    "--config": "config",
    "--set": "overrides",
    "-- ARGS": "arguments",
    "--dataset": "datasets",
    "--produces": "produces",
    "--env": "variables",
    "--secret": "secrets",
    "--from": "from_run",
    "--env-from": "env_from_current",
    "--compute": "compute",
    "--mode": "mode",
    "--distribution": "distribution",
    "--processes": "processes",
    "--instances": "instances",
    "--timeout": "timeout_s",
}


def hand_over(
    file: JobFile,
    request: SubmitRequest,
    context: Context,
    *,
    clock: Callable[[], datetime],
    random: Callable[[], str],
) -> str:
    """The id of its run. Its code and data are sent by the SDK. Raises UsageError, SettingsError, Unconfirmed."""
    project, workspace = context.project, context.workspace
    if not isinstance(workspace, TakesJobFiles):
        raise file.not_here()
    for option, name in _FOR_COMMANDS.items():
        if getattr(request, name):
            raise UsageError(f"{option} is not for a job of type {file.kind}", hint=f"say it in {file.source}")
    value = file.document.value
    now = clock()
    name = request.name or str(value.get("display_name") or value.get("name") or file.path.stem)
    run = new_run_id(name, now, random())
    record = RunRecord(
        run,
        RunSpec(
            script=file.source,
            name=name,
            job_type=file.kind,
            experiment=request.experiment or str(value.get("experiment_name") or context.settings.experiment),
            description=str(value.get("description") or ""),
            compute=str(value.get("compute") or "serverless").removeprefix("azureml:").rpartition("/")[2],
            workspace=workspace.name,
            tags=dict(request.tags),
        ),
        command_line=mask_command_line(request.command_line, []),
        created_at=now.isoformat(timespec="milliseconds"),
        outputs=f"{project.outputs_dir.name}/{run}",
    )
    record.reached(RunState.NOT_STARTED, now)
    note_made(project.ensure_state_dir(), run)
    context.sink(RunCreated(run))
    workspace.hand_over(record, file.path)
    return run
