"""Pure: a run's record as a job of Azure ML, and its documents as records."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from amlctl.core.environment import OLDEST_PYTHON, RUNTIME_REQUIREMENT, is_of_others
from amlctl.core.hidden_values import ENVIRONMENT_PREFIX
from amlctl.core.job import KEPT_PATH, RUNTIME_ARCHIVE, STORE_INPUT, input_names
from amlctl.core.run import RunRecord, RunSpec
from amlctl.core.run_state import RunState, is_final
from amlctl.core.secret_names import masked
from amlctl.core.store_keys import dataset_folder
from amlctl.workspaces.azureml.documents import as_object, whole

SERVERLESS = "serverless"
_XXHASH = (
    'export {kept_path}="$PATH"; for python in python python3 /opt/miniconda/bin/python /usr/bin/python3 ""; do '
    "\"$python\" -c 'import sys; sys.exit(sys.version_info < {oldest})' 2>/dev/null && break; done; "
    'test -n "$python" '
    '|| {{ echo "amlctl: the environment {environment} has no Python {oldest_shown} or newer"; exit 1; }}; '
    "\"$python\" -c 'from xxhash import xxh3_128' 2>/dev/null || {{ packages=$(mktemp -d) && "
    '"$python" -m pip install --quiet --disable-pip-version-check --target "$packages" \'{wanted}\' '
    '&& export PYTHONPATH="$packages:$PYTHONPATH"; }} '
    '|| {{ echo "amlctl: the environment {environment} has no xxhash, and pip cannot bring it: add xxhash to it"; '
    "exit 1; }}; "
)
"""For environments that others have made, or whose Python we cannot choose. Each process installs its own xxhash, apart
from the image's packages. Some images have only `python3`, and Azure ML's have one besides the environment's."""
_RUNTIME = f'export PYTHONPATH="$PWD/{RUNTIME_ARCHIVE}${{PYTHONPATH:+:$PYTHONPATH}}"; '
"""The code that a run had before its runtime was one file has it as a folder, which Python finds first."""
_UNKNOWN = "Unknown"
"""The service's own word for a state that it does not return."""
_OUTPUTS = ".amlctl-outputs"
"""Not `outputs`, whose files Azure ML stores a second time: the runtime's are the output `saves`."""
_LONGEST_SHOWN = 2000
_LONGEST_NAME = 256
_LONGEST_DESCRIPTION = 5000
_LONGEST_PROPERTY = 1000
"""Characters, by https://learn.microsoft.com/azure/machine-learning/resource-limits-capacity."""
_STATES = frozenset(RunState)
_PROPERTY = "amlctl."
EXPERIMENT_PROPERTY = f"{_PROPERTY}experiment"
"""The service finds the runs of a project by it."""


@dataclass(frozen=True)
class JobParts:
    """Resource ids, and addresses of the store that end with a slash.

    `saves_uri` is where the run may write: its own folder, or the whole store if it produces datasets, and for a sweep,
    whose runs Azure ML names. `data_uris` are
    ids of registered data, and addresses, of a job file's inputs. `identity` is from the settings.
    """

    code_id: str
    environment: str
    store_uri: str
    saves_uri: str
    data_uris: Mapping[str, str] = field(default_factory=dict)
    identity: str = ""


def job_document(record: RunRecord, parts: JobParts, secrets: Mapping[str, str]) -> dict[str, Any]:
    """The run as job YAML, which the SDK loads; settings of nodes are as in the job file."""
    spec = record.spec
    node = dict(spec.node)
    document: dict[str, Any] = {
        "type": "command",
        "name": record.run,
        "display_name": (spec.name or record.run)[:_LONGEST_NAME],
        "experiment_name": spec.experiment or "Default",
        "description": masked(spec.description or " ".join([spec.script, *spec.arguments]))[:_LONGEST_DESCRIPTION],
        "command": _command(record),
        "code": f"azureml:{parts.code_id}",
        "environment": parts.environment,
        "inputs": {
            STORE_INPUT: {"type": "uri_folder", "mode": "ro_mount", "path": parts.store_uri},
            # For the page of the run: the runtime gets the files from the mount of the store.
            **{
                name: {"type": "uri_folder", "mode": "direct", "path": f"{parts.store_uri}{_shown_folder(dataset)}/"}
                for dataset, name in input_names(spec.manifests, spec.inputs).items()
            },
            **{
                name: _given(path=uri, type=spec.inputs[name]["type"], mode=spec.inputs[name].get("mode"))
                for name, uri in parts.data_uris.items()
            },
        },
        "outputs": {
            "saves": {"type": "uri_folder", "mode": "rw_mount", "path": parts.saves_uri},
            **{
                name: _given(
                    type=spec.named_outputs.get(name, "uri_folder"),
                    mode=place.get("mode"),
                    path=place.get("uri"),
                    name=place.get("name"),
                    version=record.run if "dataset" in place else place.get("version"),
                )
                for name, place in spec.output_places.items()
            },
        },
        "environment_variables": {
            # The runtime fills in the others: not every input of a job file is an input of the job.
            **{name: value for name, value in spec.variables.items() if value is not None and "${{" not in value},
            **{name: value for name, value in secrets.items() if not name.startswith(ENVIRONMENT_PREFIX)},
        },
        "tags": dict(spec.tags),
        "properties": {**node.pop("properties", {}), **run_properties(record)},
        "resources": {"instance_count": spec.instances, **node.pop("resources", {})},
    }
    if spec.compute != SERVERLESS:
        document["compute"] = f"azureml:{spec.compute}"
    if spec.timeout_s is not None:
        document["limits"] = {"timeout": math.ceil(spec.timeout_s)}
    if spec.distribution is not None:
        document["distribution"] = _distribution(record)
    if parts.identity:
        document["identity"] = {"type": parts.identity}
    return {**document, **node}


def _shown_folder(dataset: str) -> str:
    """The SDK takes the text after an @ as the label of an asset."""
    return dataset_folder(dataset).replace("@", "%40")


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def _command(record: RunRecord) -> str:
    saves, prepare = "${{outputs.saves}}", ""
    trial = " --trial ${{search_space.trial}}" if record.spec.sweep else ""
    if is_of_others(record.spec.environment) or record.spec.command is not None:
        environment, python = (
            _XXHASH.format(
                wanted=RUNTIME_REQUIREMENT,
                environment=record.spec.environment,
                kept_path=KEPT_PATH,
                oldest=OLDEST_PYTHON,
                oldest_shown=".".join(map(str, OLDEST_PYTHON)),
            ),
            '"$python"',
        )
    else:
        environment, python = "", "python"
    if not (record.spec.produces or record.spec.sweep):
        # Only the run's own folder is writable; a link puts it at its path in a store. Several processes on a node
        # may try to make the link.
        saves, link = ".amlctl-saves", f".amlctl-saves/runs/{record.run}"
        make = f'ln -s "${{{{outputs.saves}}}}" {link}'
        prepare = f"mkdir -p .amlctl-saves/runs && (test -L {link} || {make} || test -L {link}) && "
    paths = "".join(
        f' --place {name} "${{{{{name}}}}}"'
        for name in (
            *(f"inputs.{name}" for name in record.spec.assets),
            *(f"outputs.{name}" for name in record.spec.output_places),
        )
    )
    return (
        f"{environment}{_RUNTIME}{prepare}{python} -m amlctl.runtime --store ${{{{inputs.store}}}} --save {saves} "
        f"--run {record.run}{trial} --container . --outputs {_OUTPUTS}{paths} -- {_shown_command(record)}"
    )


def _shown_command(record: RunRecord) -> str:
    """For the run's page: the runtime reads its command from the record."""
    if record.spec.command is not None:
        words = [record.spec.command.strip()]
    else:
        config = [] if record.spec.config is None else record.spec.config_arguments(record.spec.config)
        words = ["python", record.spec.script, *config, *record.spec.arguments]
    shown = " ".join(shlex.quote(masked(word)) for word in words).replace("${{", "{{").replace("$[[", "[[")
    return shown if len(shown) <= _LONGEST_SHOWN else shlex.quote(f"{masked(words[0])[:_LONGEST_SHOWN]} ...")


def _distribution(record: RunRecord) -> dict[str, Any]:
    if record.spec.distribution == "tensorflow":
        return {"type": "tensorflow", "worker_count": record.spec.process_group.world_size}
    return {"type": record.spec.distribution, "process_count_per_instance": record.spec.processes}


def run_properties(record: RunRecord) -> dict[str, str]:
    """For a list of runs, which then need not read each record."""
    facts = {
        "experiment": record.spec.experiment or "Default",
        "script": record.spec.script,
        "config": record.spec.config,
        "name": record.spec.name,
        "code": record.spec.code,
        "environment": record.spec.environment,
        "compute": record.spec.compute,
        "user": record.user,
        "created_at": record.created_at,
        "job_type": record.spec.job_type,
    }
    return {_PROPERTY + name: value[:_LONGEST_PROPERTY] for name, value in facts.items() if value}


def watched(record: RunRecord, run: Mapping[str, Any], now: datetime) -> RunRecord:
    """The record with the state from run history; a final state is left to `ending`."""
    times = dict(record.times)
    status = str(run.get("status") or record.status)
    record = replace(record, services=_services(run))
    started = time_of(run.get("startTimeUtc"))
    if started is not None and RunState.RUNNING not in times:
        times = entered(times, RunState.RUNNING, started)
    if is_final(status):
        return replace(record, times=times, waits_for="")
    if status in _STATES and status not in times:
        last = max(times.values(), default="")
        times[status] = max(iso(now), last)
    return replace(record, status=status, times=times, waits_for="")


def _services(run: Mapping[str, Any]) -> dict[str, str]:
    """Addresses that a person can open, without the two that each run has."""
    found = {str(name): str(as_object(one).get("endpoint") or "") for name, one in (run.get("services") or {}).items()}
    return {
        name: url for name, url in found.items() if url.startswith("https://") and name not in ("Studio", "Tracking")
    }


def entered(times: Mapping[str, str], state: str, at: datetime) -> dict[str, str]:
    """`times` with the state at the time that the service returns; what our own clock has put later is moved there."""
    text = iso(at)
    return {**{name: min(time, text) for name, time in times.items() if name != state}, state: text}


def record_of_job(document: Mapping[str, Any], workspace: str) -> RunRecord:
    """From the job alone, of a run that was submitted elsewhere by any tool."""
    properties = document.get("properties") or {}
    created = (document.get("systemData") or {}).get("createdAt")
    return _foreign(
        str(document.get("name") or ""),
        properties,
        RunSpec(
            experiment=str(properties.get("experimentName") or ""),
            compute=str(properties.get("computeId") or SERVERLESS).rpartition("/")[2],
            workspace=workspace,
            instances=whole((properties.get("resources") or {}).get("instanceCount")) or 1,
        ),
        created=created,
        user=str((document.get("systemData") or {}).get("createdBy") or ""),
    )


def record_of_run(run: Mapping[str, Any], workspace: str) -> RunRecord:
    """The same from run history."""
    return _foreign(
        str(run.get("runId") or ""),
        run,
        RunSpec(
            experiment=str(run.get("name") or ""), compute=str(run.get("target") or SERVERLESS), workspace=workspace
        ),
        created=run.get("createdUtc"),
        user=str(as_object(run.get("createdBy")).get("userName") or ""),
    )


def is_of_amlctl(run: Mapping[str, Any]) -> bool:
    """Whether an amlctl has made it, according to run history."""
    return any(key.startswith(_PROPERTY) for key in run.get("properties") or {})


def _foreign(run: str, document: Mapping[str, Any], spec: RunSpec, *, created: Any, user: str) -> RunRecord:
    """With what the properties and tags of the job add to `spec`."""
    properties = document.get("properties") or {}
    facts = {key.removeprefix(_PROPERTY): str(value) for key, value in properties.items() if key.startswith(_PROPERTY)}
    tags = {
        key: str(value)
        for key, value in (document.get("tags") or {}).items()
        if not key.startswith(("_aml_system_", "azureml."))
    }
    at = time_of(created)
    return RunRecord(
        run,
        replace(
            spec,
            script=facts.get("script", ""),
            name=facts.get("name") or str(document.get("displayName") or ""),
            config=facts.get("config"),
            code=facts.get("code", ""),
            environment=facts.get("environment", ""),
            compute=facts.get("compute") or spec.compute,
            tags=tags,
            job_type=facts.get("job_type"),
        ),
        status=str(document.get("status") or _UNKNOWN),
        user=facts.get("user") or user,
        created_at=facts.get("created_at") or (iso(at) if at else ""),
    )


def iso(at: datetime) -> str:
    """The format of times in records."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds")


def time_of(text: Any) -> datetime | None:
    """A time from the service; UTC without a zone. The year 1 stands for no time in .NET."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    if not 1970 < at.year < 9999:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
