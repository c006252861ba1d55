"""Replies of the loopback Azure ML have the recorded fields."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.contract.azureml_service.requests import Send, cluster_document
from tests.support.azureml_service import AzureMLService, Faults
from tests.support.runs import wait_until

RECORDED = Path(__file__).parents[4] / "shared/azureml/recorded"
SHAPES: Mapping[str, tuple[str, int]] = {
    "workspace": ("workspace_get.json", 0),
    "datastore": ("datastores_default_list_secrets.json", 0),
    "secrets": ("datastores_default_list_secrets.json", 1),
    "datastores": ("datastores_default_list_secrets.json", 2),
    "not_found": ("datastore_crud_404.json", -1),
    "compute_created": ("compute_amlcompute_create_delete.json", 0),
    "operation": ("compute_amlcompute_create_delete.json", 1),
    "compute": ("compute_amlcompute_create_delete.json", 2),
    "environment": ("environment_autoincrement.json", 1),
    "environment_container": ("environment_autoincrement.json", 2),
    "pending_upload": ("code_pending_upload.json", 1),
    "code": ("code_pending_upload.json", 6),
    "job": ("job_command_serverless.json", 0),
    "job_outputs": ("job_named_outputs.json", 0),
    "run": ("run_history_get_run.json", 0),
}
"""Shape to file of recorded replies and number of the exchange."""
FIELDS: Mapping[str, Mapping[str, list[str]]] = json.loads(
    (Path(__file__).parents[2] / "data/azureml_fields.json").read_text()
)
"""Shape to `fields`, which the real reply has, and `also`, which newer versions have and the recorded one has not."""
_FREE = ("tags", "properties.tags", "properties.properties", "properties.environmentVariables", "error.additionalInfo")
_NAMED = ("properties.inputs", "properties.outputs")


def _fields(value: Any, at: str = "") -> set[str]:
    """Dotted paths of all keys; what lies under names of the user's choice is under a star, or left out."""
    if isinstance(value, list):
        return {path for one in value for path in _fields(one, f"{at}[]")}
    if not isinstance(value, dict):
        return set()
    found = set()
    for key, inner in value.items():
        path = f"{at}.{'*' if at in _NAMED else key}".lstrip(".")
        if key == "userAccountCredentials":  # comes back where it was given
            continue
        found.add(path)
        if path not in _FREE and not (path == "properties" and "runId" in value):
            found |= _fields(inner, path)
    return found


class TestShapes:
    @pytest.mark.skipif(not RECORDED.is_dir(), reason="recorded replies are not here")
    @pytest.mark.parametrize("shape", SHAPES)
    def test_copy_of_the_field_lists_is_that_of_the_recorded_replies(self, shape: str) -> None:
        file, index = SHAPES[shape]
        body = json.loads((RECORDED / file).read_text())["exchanges"][index]["response"]["body"]
        assert sorted(_fields(body)) == FIELDS[shape]["fields"]

    @pytest.mark.parametrize("shape", SHAPES)
    def test_replies_have_the_recorded_fields(
        self, shape: str, send: Send, name: str, faults: Faults, submit: Callable[..., str], azureml: AzureMLService
    ) -> None:
        body = self._reply(shape, send, name, submit, azureml)
        served, known = _fields(body), FIELDS[shape]
        assert sorted(set(known["fields"]) - served) == []
        assert sorted(served - set(known["fields"]) - set(known["also"])) == []

    def _reply(self, shape: str, send: Send, name: str, submit: Callable[..., str], azureml: AzureMLService) -> Any:
        gets = {
            "workspace": "",
            "datastore": "/datastores/workspaceblobstore",
            "datastores": "/datastores?count=30",
            "not_found": "/datastores/none",
            "environment": "/environments/plain/versions/1",
            "environment_container": "/environments/plain",
        }
        if shape in gets:
            return send("GET", gets[shape]).json()
        if shape == "secrets":
            return send("POST", "/datastores/workspaceblobstore/listSecrets").json()
        if shape.startswith(("compute", "operation")):
            created = send("PUT", f"/computes/{name}", cluster_document())
            if shape == "compute_created":
                return created.json()
            operation = created.headers["Azure-AsyncOperation"]
            wait_until(lambda: send("GET", operation).json()["status"] == "Succeeded")
            return send("GET", operation if shape == "operation" else f"/computes/{name}").json()
        code = f"/codes/{name}/versions/1"
        if shape == "pending_upload":
            return send("POST", f"{code}/startPendingUpload", {}).json()
        if shape == "code":
            return send("PUT", code, {"properties": {"codeUri": f"{azureml.account_url}/c/f"}}).json()
        literal = {"jobInputType": "uri_folder", "uri": "azureml://datastores/workspaceblobstore/paths/none/"}
        more = {"inputs": {"d": literal}} if shape == "job" else {"outputs": {"m": {"jobOutputType": "uri_folder"}}}
        queue = {"queueSettings": {"jobTier": "Standard"}} if shape == "job" else {}
        identity = {"identity": {"identityType": "AMLToken"}} if shape == "job" else {}
        job = submit("true", **more, **queue, **identity)
        return send("GET", f"/history/v1.0{azureml.place.id}/runs/{job}" if shape == "run" else f"/jobs/{job}").json()
