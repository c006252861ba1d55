"""The loopback Azure ML answers requests as the contract says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.contract.azureml_service.requests import Send, environment_document, without_login
from tests.support.azureml_service import AzureMLService, Faults


class TestWire:
    def test_login_and_api_version_are_wanted(self, azureml: AzureMLService, send: Send) -> None:
        refused = without_login(f"{azureml.endpoint}{azureml.place.id}?api-version=1")
        assert refused.status_code == 401
        assert "Bearer" in refused.headers["WWW-Authenticate"]
        assert send("GET", "", version="").status_code == 400
        assert send("GET", "", version="2031-01-01-anything").status_code == 200

    def test_names_are_matched_in_any_case(self, azureml: AzureMLService, send: Send) -> None:
        assert send("GET", azureml.place.id.upper()).status_code == 200
        assert send("GET", "/DATASTORES/WorkspaceBlobStore").json()["name"] == "workspaceblobstore"

    @pytest.mark.parametrize(
        ("path", "code"),
        [
            (
                "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w",
                "Subscription",
            ),
            ("/jobs/none", "UserError"),
            ("/computes/none", "UserError"),
            ("/environments/none/versions/1", "UserError"),
            ("/environments/none", "UserError"),
            ("/codes/none/versions/1", "UserError"),
        ],
    )
    def test_what_is_not_there(self, send: Send, path: str, code: str) -> None:
        answer = send("GET", path)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"].startswith(code)
        assert answer.headers["x-ms-correlation-request-id"]

    def test_versions_do_not_change(self, send: Send, name: str, azureml: AzureMLService) -> None:
        path = f"/environments/{name}/versions/1"
        statuses = [
            send("PUT", path, environment_document(conda)).status_code
            for conda in ("name: a\n", "name:   a\n", "name: b\n")
        ]
        assert statuses == [201, 200, 409]
        path = f"/codes/{name}/versions/1"
        uris = [f"{azureml.account_url}/c/{folder}" for folder in ("one", "one", "two")]
        statuses = [send("PUT", path, {"properties": {"codeUri": uri}}).status_code for uri in uris]
        assert statuses == [201, 200, 400]

    def test_a_job_is_made_once(self, send: Send, submit: Callable[..., str], azureml: AzureMLService) -> None:
        job = submit("echo once", tags={"a": "1"})
        azureml.job(job).wait()
        asked = {"jobType": "Command", "command": "echo once", "environmentId": "x"}
        again = send("PUT", f"/jobs/{job}", {"properties": {**asked, "environmentId": None, "tags": {"b": "2"}}})
        assert again.status_code == 200
        assert again.json()["properties"]["tags"]["b"] == "2"
        assert send("PUT", f"/jobs/{job}", {"properties": {**asked, "command": "echo"}}).status_code == 400
        assert azureml.job(job).attempt == 1

    @pytest.mark.parametrize("wrong", ["computeId", "environmentId", "codeId"])
    def test_job_with_something_unknown(self, send: Send, name: str, environment: str, wrong: str) -> None:
        asked = {"jobType": "Command", "command": "true", "environmentId": environment}
        kind = {"computeId": "computes/none", "environmentId": "environments/none/versions/1"}
        asked[wrong] = f"{environment.partition('/environments/')[0]}/{kind.get(wrong, 'codes/none/versions/1')}"
        assert send("PUT", f"/jobs/{name}", {"properties": asked}).status_code == 400

    def test_list_in_pages(
        self,
        send: Send,
        submit: Callable[..., str],
        azureml: AzureMLService,
        faults: Faults,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(azureml.jobs, "strangers", [{"name": "stranger"}])
        job = submit("true")
        faults.page_size, faults.has_empty_page = 1, True
        seen: list[str] = []
        sizes = []
        address = "/jobs?listViewType=ActiveOnly"
        while address:
            page = send("GET", address).json()
            seen += [one["name"] for one in page["value"]]
            sizes.append(len(page["value"]))
            address = page.get("nextLink", "")
        active = [one.name for one in azureml.jobs.all() if not one.asked.get("isArchived")]
        assert seen == ["stranger", *active[::-1]]
        assert seen[1] == job
        assert sizes[1] == 0

    def test_archived_jobs_are_listed_apart(
        self, send: Send, submit: Callable[..., str], azureml: AzureMLService
    ) -> None:
        job = submit("true")
        history = f"/history/v1.0{azureml.place.id}/experiments/Default/runs/{job}"
        assert send("PATCH", history, {"hidden": True, "tags": {"k": "v"}}).json()["tags"]["k"] == "v"
        names = {
            view: [one["name"] for one in send("GET", f"/jobs?listViewType={view}").json()["value"]]
            for view in ("ActiveOnly", "ArchivedOnly", "All")
        }
        assert [job in names[view] for view in names] == [False, True, True]

    def test_sizes_and_quotas(self, send: Send, azureml: AzureMLService) -> None:
        sizes = send("GET", f"{azureml.place.location_id}/vmSizes").json()["value"]
        assert "Standard_DS3_v2" in {one["name"] for one in sizes}
        usages = send("GET", f"{azureml.place.location_id}/usages").json()["value"]
        of_all = {"TotalDedicatedCores", "TotalLowPriorityCores"}
        assert {one["name"]["value"] for one in usages} - of_all == {one["family"] for one in sizes}

    def test_another_default_datastore(
        self, azureml: AzureMLService, send: Send, submit: Callable[..., str], name: str
    ) -> None:
        azureml.datastores.add(name, f"{name}-container")
        azureml.storage.default_datastore = name
        try:
            (default,) = send("GET", "/datastores?isDefault=true").json()["value"]
            assert (default["name"], default["properties"]["containerName"]) == (name, f"{name}-container")
            job = submit("echo > ${{outputs.m}}/m", outputs={"m": {"jobOutputType": "uri_folder"}})
            assert azureml.job(job).wait() == "Completed"
            assert azureml.storage.blob(f"{name}-container", f"azureml/{job}/m/m").exists()
        finally:
            azureml.storage.default_datastore = "workspaceblobstore"
