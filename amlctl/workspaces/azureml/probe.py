"""`doctor --probe` in an Azure ML workspace: an environment, a code version, and a job of a minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from amlctl.core.environment import DEFAULT_IMAGE
from amlctl.core.message import Command
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState
from amlctl.core.store_keys import run_prefix
from amlctl.errors import CheckFailed, NotFound
from amlctl.stores.contract import Store
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.datastores import store_address
from amlctl.workspaces.azureml.job import SERVERLESS
from amlctl.workspaces.azureml.starting import submit_job
from amlctl.workspaces.contract import ProbeSteps, Workspace

_VERSION = "2023-04-01-preview"
_CODE_VERSION = "2023-04-01"
_NAME = "amlctl-probe"
_JOB_LIMIT_S = 1800.0
"""A cluster may take minutes to start its first node."""
_MOUNT = " ".join(
    f"({command}) >/dev/null 2>&1 && echo 'mount: {name} works' || echo 'mount: {name} is refused';"
    for name, command in (
        ("chmod", "chmod 600 $f"),
        ("utime", "touch -d 2020-01-01 $f"),
        ("append", "echo more >>$f"),
        ("rename", "mv $f $f.moved && mv $f.moved $f"),
        ("link", "ln $f $f.link && rm $f.link"),
        ("symlink", "ln -s $f $f.symlink && rm $f.symlink"),
        ("flock", "flock -n $f true"),
        ("fsync", "dd if=/dev/zero of=$f.sync bs=1 count=1 conv=fsync && rm $f.sync"),
    )
)
_COMMAND = (
    'cat probe.txt && cat "${{inputs.data}}/hello.txt" '
    '&& cp "${{inputs.data}}/hello.txt" "${{outputs.result}}/copied.txt" '
    '&& f="${{outputs.result}}/copied.txt" && ' + _MOUNT
)


class WorkspaceProbe:
    """`workspace` is the one of `connection`."""

    def __init__(self, connection: Connection, store: Store, workspace: Workspace, steps: ProbeSteps) -> None:
        self._connection = connection
        self._store = store
        self._workspace = workspace
        self._steps = steps
        address = connection.address
        steps.names.update(
            {
                address.subscription_id: "subscription",
                address.resource_group: "resource group",
                address.workspace_name: "workspace",
                address.tenant_id: "tenant",
            }
        )

    def run(self, target: str) -> None:
        has_environment = self._asset("environment", "environments", _VERSION, self._environment)
        has_code = self._asset("code", "codes", _CODE_VERSION, self._code)
        if has_environment and has_code:
            self._job(target)

    def _asset(self, kind: str, folder: str, version: str, create: Callable[[], str]) -> bool:
        """Create, read and change it; it is deleted at the end, or archived if that is not possible."""
        path = f"/{folder}/{_NAME}/versions/{self._steps.id}"
        request = self._connection.workspace

        def change() -> str:
            properties = {**self._properties(path, version), "tags": {"probe": "changed"}}
            request("PUT", path, version, {"properties": properties})
            return "" if self._properties(path, version).get("tags") else "tags are not stored"

        def remove() -> str:
            answer = request("DELETE", path, version, accept=range(400, 600))
            if answer.status < 400:
                return "deleted"
            if request("GET", path, version, accept=(404,)).status == 404:
                return "did not exist"
            request("PUT", path, version, {"properties": {**self._properties(path, version), "isArchived": True}})
            return f"archived; DELETE is answered with {answer.status} {answer.code}".rstrip()

        self._steps.remove_at_end(kind, remove)
        if not self._steps.try_step(f"{kind}: create", create):
            return False
        self._steps.try_step(f"{kind}: read", lambda: "" if self._properties(path, version) else "it is empty")
        self._steps.try_step(f"{kind}: change", change)
        return True

    def _properties(self, path: str, version: str) -> dict[str, Any]:
        document = self._connection.workspace("GET", path, version).document
        return dict(document.get("properties") or {})

    def _environment(self) -> str:
        with self._connection.sdk.client() as client:
            from azure.ai.ml.entities import Environment

            client.environments.create_or_update(Environment(name=_NAME, version=self._steps.id, image=DEFAULT_IMAGE))
        return ""

    def _code(self) -> str:
        _, address = store_address(self._connection, self._store.url)
        prefix = run_prefix(self._steps.id)
        self._store.put(f"{prefix}code/probe.txt", b"of the code\n")
        self._store.put(f"{prefix}data/hello.txt", b"of the data\n")
        uri = f"{address.account_url}/{address.container}/{address.prefix}{prefix}code"
        path = f"/codes/{_NAME}/versions/{self._steps.id}"
        self._connection.workspace("PUT", path, _CODE_VERSION, {"properties": {"codeUri": uri, "isAnonymous": False}})
        return ""

    def _job(self, target: str) -> None:
        run, steps = self._steps.id, self._steps
        steps.remove_at_end("job", self._remove_job)
        steps.tell(f"the probe runs a job of about a minute on {target}")
        if not steps.try_step("job: create", lambda: submit_job(self._connection, self._loaded(target)).status):
            return
        steps.try_step("job: read", lambda: self._workspace.read(run).status)
        if not steps.try_step("job: run", self._follow):
            return
        steps.try_step("job: log", self._log)
        steps.try_step("job: output", self._output)
        steps.try_step("job: change", self._change)

    def _loaded(self, target: str) -> Any:
        base = self._connection.address.id
        store_uri, _ = store_address(self._connection, self._store.url)
        prefix = store_uri + run_prefix(self._steps.id)
        document: dict[str, Any] = {
            "type": "command",
            "name": self._steps.id,
            "experiment_name": _NAME,
            "command": _COMMAND,
            "code": f"azureml:{base}/codes/{_NAME}/versions/{self._steps.id}",
            "environment": f"azureml:{_NAME}:{self._steps.id}",
            "inputs": {"data": {"type": "uri_folder", "mode": "ro_mount", "path": f"{prefix}data/"}},
            "outputs": {"result": {"type": "uri_folder", "mode": "rw_mount", "path": f"{prefix}result/"}},
            "limits": {"timeout": 600},
        }
        if target != SERVERLESS:
            document["compute"] = f"azureml:{target}"
        if self._connection.identity:
            document["identity"] = {"type": self._connection.identity}
        return self._connection.sdk.loaded_job(document)

    def _follow(self) -> str:
        record = self._ended()
        if record.status != RunState.COMPLETED:
            raise CheckFailed(f"{record.status}: {(record.error or {}).get('message', '')}")
        return record.status

    def _ended(self, advice: str = "") -> RunRecord:
        run, deadline = self._steps.id, time.monotonic() + _JOB_LIMIT_S
        while not (record := self._workspace.read(run)).is_final:
            if time.monotonic() > deadline:
                raise CheckFailed(f"still {record.status} after {_JOB_LIMIT_S / 60:.0f} minutes{advice}")
            self._workspace.wait(run, 1 << 60, 10.0)
        return record

    def _log(self) -> str:
        data = b""
        while not (chunk := self._workspace.read_log(self._steps.id, len(data))).is_final:
            data += chunk.data
        text = data.decode(errors="replace")
        if "of the code" not in text or "of the data" not in text:
            raise CheckFailed("the log lacks what the job printed")
        refused = [line.removeprefix("mount: ") for line in text.splitlines() if line.endswith("is refused")]
        return "the mount of outputs: " + (", ".join(refused) or "nothing is refused")

    def _output(self) -> str:
        data = self._store.get(f"{run_prefix(self._steps.id)}result/copied.txt")
        if not data.startswith(b"of the data"):
            raise CheckFailed("the output differs from what the job wrote")
        return ""

    def _change(self) -> str:
        run = self._steps.id
        self._connection.history("PATCH", f"/experiments/{_NAME}/runs/{run}", {"tags": {"probe": "changed"}})
        document: Mapping[str, Any] = self._connection.history("GET", f"/runs/{run}").document
        if (document.get("tags") or {}).get("probe") != "changed":
            raise CheckFailed("the tag is missing")
        return ""

    def _remove_job(self) -> str:
        run = self._steps.id
        try:
            record = self._workspace.read(run)
        except NotFound:
            return "did not exist"
        if not record.is_final:
            self._workspace.cancel(run)
            self._ended(f"; delete it later: {Command('runs', 'delete', run)}")
        # The output has a path among the probe's own blobs, which are removed after this.
        kept = [what for what in self._workspace.delete(run) if run_prefix(run) not in what]
        return f"stays: {'; '.join(kept)}" if kept else "nothing is left"
