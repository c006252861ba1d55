"""Run history, a service of its own: runs with their error, addresses of logs, ids and places of outputs."""

from __future__ import annotations

import time
from typing import Any

from .faults import Faults
from .job import Job
from .jobs import Jobs
from .place import Place, last_name
from .replies import Handler, Reply, Request, arm_error
from .storage import ARTIFACTS, Storage

_LOG_FOLDERS = ("user_logs", "system_logs", "azureml-logs", "logs")
_EMPTY_KEYS = [
    "token",
    "tokenExpiryTimeUtc",
    "warnings",
    "parentRunUuid",
    "currentComputeTime",
    "cancelationReason",
    "currentAttemptId",
    "parentRunId",
    "scheduleId",
    "scriptName",
    "runDefinition",
    "jobSpecification",
    "primaryMetricName",
    "createdFrom",
    "completeUri",
    "diagnosticsUri",
    "computeRequest",
    "compute",
    "retainForLifetimeOfWorkspace",
    "queueingInfo",
    "inputs",
]


class History:
    def __init__(self, place: Place, storage: Storage, faults: Faults, jobs: Jobs) -> None:
        self._place = place
        self._storage = storage
        self._faults = faults
        self._jobs = jobs

    def routes(self) -> list[tuple[str, str, Handler]]:
        base = "/history/v1.0{ws}"
        run = f"{base}/runs/(?P<name>[^/]+)"
        in_experiment = f"{base}/experiments/[^/]+/runs/(?P<name>[^/]+)"
        return [
            ("GET", run, lambda request: Reply(200, self._run(self._job(request.names["name"])))),
            ("GET", f"{run}/details", self._details),
            ("GET", f"{run}/children", self._children),
            ("GET", f"{in_experiment}/details", self._details),
            ("PATCH", in_experiment, self._patch),
            ("PATCH", run, self._patch),
            ("POST", f"{base}/rundata", self._run_data),
            ("POST", "/data/v1.0{ws}/dataversion/batchGetResolvedUris", self._resolve),
        ]

    def _job(self, name: str) -> Job:
        for job in self._jobs.all():
            if job.name.lower() == name.lower():
                return job
        raise arm_error(404, "UserError", f"Run with id {name} was not found.")

    def _children(self, request: Request) -> Reply:
        parent = self._job(request.names["name"])
        found = [self._run(job) for job in self._jobs.all() if job.parent == parent.name]
        start = int((request.query.get("$continuationtoken") or "after/0").rpartition("/")[2])
        end = start + self._faults.page_size
        token = f"after/{end}" if end < len(found) else None
        return Reply(200, {"value": found[start:end], "continuationToken": token})

    def _details(self, request: Request) -> Reply:
        job = self._job(request.names["name"])
        run = self._run(job)
        run["createdTimeUtc"] = run["createdUtc"]
        return Reply(200, {**run, "logFiles": self._logs(job), "jobCost": None, "hasVirtualParent": False})

    def _logs(self, job: Job) -> dict[str, str]:
        began = job.command_began_at_s
        if began is not None and time.monotonic() < began + self._faults.logs_listed_after_s:
            return {}
        prefix = job.artifacts
        found = (one.name for folder in _LOG_FOLDERS for one in self._storage.under(ARTIFACTS, f"{prefix}{folder}/"))
        return {
            name[len(prefix) :]: self._storage.signed_url(ARTIFACTS, name, self._faults.signed_for_s) for name in found
        }

    def _patch(self, request: Request) -> Reply:
        job = self._job(request.names["name"])
        with job.lock:
            job.tags.update(request.body.get("tags") or {})
            for sent, kept in (
                ("hidden", "isArchived"),
                ("displayName", "displayName"),
                ("description", "description"),
            ):
                if request.body.get(sent) is not None:
                    job.asked[kept] = request.body[sent]
        return Reply(200, self._run(job))

    def _run_data(self, request: Request) -> Reply:
        job = self._job(str(request.body.get("runId", "")))
        specification = job.document(self._place)["properties"] if request.body.get("selectJobSpecification") else None
        return Reply(200, {"runMetadata": self._run(job), "runDefinition": None, "jobSpecification": specification})

    def _resolve(self, request: Request) -> Reply:
        """Ids of outputs, which are those of `_run`, to long datastore addresses."""
        place = self._place
        workspace = (
            f"azureml://subscriptions/{place.subscription_id}/resourceGroups/{place.resource_group}"
            f"/workspaces/{place.workspace_name}"
        )
        found = {}
        for asset in request.body.get("values") or []:
            owner, _, output = asset.rpartition("/data/")[2].partition("_output_data_")
            name = output.partition("/")[0]
            job = self._job(owner)
            uri = (
                job.named_outputs()[name].get("uri")
                or f"azureml://datastores/{self._storage.default_datastore}/paths/azureml/{job.name}/{name}/"
            )
            found[asset] = {"uri": uri.replace("azureml://", f"{workspace}/", 1), "type": "uri_folder"}
        return Reply(200, {"values": found})

    def _run(self, job: Job) -> dict[str, Any]:
        with job.lock:
            person = {
                "userObjectId": "00000000-0000-0000-0000-000000000001",
                "userPuId": None,
                "userIdp": None,
                "userAltSecId": None,
                "userIss": f"https://sts.windows.net/{self._place.tenant_id}/",
                "userTenantId": self._place.tenant_id,
                "userName": "Test Person",
                "upn": None,
            }
            cancel = f"{self._place.endpoint}/studioservice/apiv2{self._place.id}/runs/{job.name}/Cancel"
            has_outputs = job.status == "Completed" and bool(job.named_outputs())
            return {
                **dict.fromkeys(_EMPTY_KEYS),
                "runNumber": 1,
                "parentRunId": job.parent,
                "rootRunId": job.name,
                "createdUtc": job.created,
                "createdBy": person,
                "userId": person["userObjectId"],
                "error": job.error,
                "revision": len(job.statuses),
                "statusRevision": len(job.statuses),
                "runUuid": job.uuid,
                "rootRunUuid": job.uuid,
                "lastStartTimeUtc": job.started,
                "computeDuration": None,
                "effectiveStartTimeUtc": job.started,
                "lastModifiedBy": person,
                "lastModifiedUtc": job.ended or job.started or job.created,
                "duration": None,
                "runId": job.name,
                "experimentId": job.uuid,
                "status": job.status,
                "startTimeUtc": job.started,
                "endTimeUtc": job.ended,
                "displayName": job.asked.get("displayName") or job.name,
                "name": job.experiment,
                "dataContainerId": job.container_id,
                "description": job.asked.get("description"),
                "hidden": bool(job.asked.get("isArchived")),
                "runType": "azureml.scriptrun",
                "runTypeV2": {
                    "orchestrator": "AmlCompute",
                    "traits": ["Execution"],
                    "attribution": None,
                    "computeType": "AmlCTrain",
                },
                "properties": dict(job.properties),
                "parameters": {},
                "actionUris": {"Cancel": cancel},
                "target": last_name(job.asked.get("computeId") or "serverless"),
                "uniqueChildRunComputeTargets": [],
                "tags": dict(job.tags),
                "settings": {},
                "services": _services(job),
                "inputDatasets": [],
                "outputDatasets": [],
                "cancelUri": cancel,
                "outputs": {name: self._output(job, name) for name in job.named_outputs()} if has_outputs else None,
            }

    def _output(self, job: Job, name: str) -> dict[str, str]:
        place = self._place
        asset = (
            f"azureml://locations/{place.region}/workspaces/{place.workspace_id}"
            f"/data/{job.name}_output_data_{name}/versions/1"
        )
        return {"assetId": asset, "type": job.named_outputs()[name].get("jobOutputType") or "uri_folder"}


def _services(job: Job) -> dict[str, Any]:
    """Those that the job wants, which can be reached while it runs."""
    is_up = job.status == "Running"
    return {
        name: {
            "type": asked.get("jobServiceType"),
            "endpoint": f"https://{name}-{job.name}.westeurope.instances.azureml.ms/" if is_up else None,
            "status": "Running" if is_up else "Starting",
        }
        for name, asked in (job.asked.get("services") or {}).items()
    }
