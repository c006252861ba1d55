"""The loopback Azure ML keeps to the contract: the real SDK works with it, and its replies have the recorded fields."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest
from azure.core import PipelineClient
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError, ServiceResponseError
from azure.core.pipeline.policies import BearerTokenCredentialPolicy
from azure.core.rest import HttpRequest, HttpResponse
from azure.identity import DefaultAzureCredential
from azure.storage.blob import BlobServiceClient

from tests.support.azureml_service import AzureMLService, Faults
from tests.support.azurite import running_azurite
from tests.support.throwaway_ca import make_certificate

RECORDED = Path(__file__).parents[3] / "shared/azureml/recorded"
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
    (Path(__file__).parents[1] / "data/azureml_fields.json").read_text()
)
"""Shape to `fields`, which the real reply has, and `also`, which newer versions have and the recorded one has not."""
_FREE = ("tags", "properties.tags", "properties.properties", "properties.environmentVariables", "error.additionalInfo")
_NAMED = ("properties.inputs", "properties.outputs")
_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04"
Send = Callable[..., HttpResponse]
Client = PipelineClient[HttpRequest, HttpResponse]


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


@pytest.fixture(autouse=True)
def faults(azureml: AzureMLService, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """The process is pointed at the service, which behaves again after each test."""
    for name, value in azureml.stock_variables.items():
        monkeypatch.setenv(name, value)
    before = os.environ.pop("AZUREML_CURRENT_CLOUD", None)
    with azureml.faults.while_testing() as switches:
        yield switches
    os.environ.pop("AZUREML_CURRENT_CLOUD", None)  # the SDK's constructor writes it
    if before is not None:
        os.environ["AZUREML_CURRENT_CLOUD"] = before


@pytest.fixture
def name() -> str:
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def send(azureml: AzureMLService) -> Iterator[Send]:
    """One request to the workspace, or to a path from the root; azure-core repeats what it repeats."""
    with DefaultAzureCredential() as credential:
        policies = [BearerTokenCredentialPolicy(credential, "https://management.azure.com/.default")]
        client: Client = PipelineClient(azureml.endpoint, per_retry_policies=policies, retry_total=0)
        with client:

            def send_one(method: str, path: str, body: Any = None, *, version: str = "2024-10-01") -> HttpResponse:
                whole = (
                    path if path.lower().startswith(("/subscriptions", "/history", "http")) else azureml.place.id + path
                )
                query = "" if "api-version=" in whole else f"{'&' if '?' in whole else '?'}api-version={version}"
                address = client.format_url(whole + query)
                return client.send_request(HttpRequest(method, address, json=body))

            yield send_one


@pytest.fixture
def ml(azureml: AzureMLService) -> Any:
    """The SDK's client, unmodified."""
    from azure.ai.ml import MLClient

    logging.getLogger("azure").setLevel(logging.ERROR)
    return MLClient(
        DefaultAzureCredential(),
        azureml.subscription_id,
        azureml.resource_group,
        azureml.workspace_name,
        polling_interval=0.05,
    )


@pytest.fixture
def environment(send: Send) -> str:
    """The id of one that is there already."""
    answer = send("PUT", "/environments/plain/versions/1", _environment("name: x\n"))
    return str(answer.json()["id"])


@pytest.fixture
def submit(azureml: AzureMLService, send: Send, environment: str, name: str) -> Callable[..., str]:
    """Submit a serverless job of this command. Returns its name."""

    def submit_one(command: str, **more: Any) -> str:
        asked = {"jobType": "Command", "command": command, "environmentId": environment, **more}
        answer = send("PUT", f"/jobs/{name}", {"properties": asked})
        assert answer.status_code == 201, answer.text()
        return name

    return submit_one


def _put_blob(service: AzureMLService, path: str, text: str) -> None:
    service.storage.send_text(text, service.default_container, path)


def _artifact(service: AzureMLService, job: str, path: str) -> str:
    blob = service.storage.blob("azureml", f"ExperimentRun/dcid.{job}/{path}")
    return blob.download_blob().readall().decode()


def _log(service: AzureMLService, job: str, log: str = "std_log.txt") -> str:
    return _artifact(service, job, f"user_logs/{log}")


def _without_login(url: str) -> HttpResponse:
    client: Client = PipelineClient(url, policies=[])
    with client:
        return client.send_request(HttpRequest("GET", url))


def _eventually(holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
    until = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.01)


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
            created = send("PUT", f"/computes/{name}", _cluster())
            if shape == "compute_created":
                return created.json()
            operation = created.headers["Azure-AsyncOperation"]
            _eventually(lambda: send("GET", operation).json()["status"] == "Succeeded")
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


def _environment(conda: str | None = None, image: str = _IMAGE) -> dict[str, Any]:
    return {"properties": {"image": image, **({"condaFile": conda} if conda else {})}}


def _cluster(**inner: Any) -> dict[str, Any]:
    scale = {"minNodeCount": 0, "maxNodeCount": 2, "nodeIdleTimeBeforeScaleDown": "PT2M"}
    properties = {"vmSize": "Standard_DS3_v2", "vmPriority": "Dedicated", "scaleSettings": scale, **inner}
    return {"location": "eastus", "properties": {"computeType": "AmlCompute", "properties": properties}}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:marshmallow", "ignore::DeprecationWarning:azure")
class TestStockClient:
    """`azure-ai-ml` as it is."""

    def test_cluster_environment_code_job_and_its_outputs(
        self, ml: Any, azureml: AzureMLService, name: str, tmp_path: Path
    ) -> None:
        from azure.ai.ml import Input, Output, command
        from azure.ai.ml.entities import AmlCompute, Environment

        cluster = AmlCompute(name=name, size="Standard_DS3_v2", max_instances=1, location="eastus")
        assert ml.compute.begin_create_or_update(cluster).result().provisioning_state == "Succeeded"
        conda = {"dependencies": ["python=3.11"]}
        environment = ml.environments.create_or_update(
            Environment(name=name, version="1", image=_IMAGE, conda_file=conda)
        )
        source = tmp_path / "src"
        source.mkdir()
        (source / "train.py").write_text(
            "import pathlib, sys\n"
            "data, model = map(pathlib.Path, sys.argv[1:])\n"
            "print('read', *sorted(one.name for one in data.iterdir()))\n"
            "(model / 'weights').write_text('w')\n"
            "pathlib.Path('outputs/metrics.json').write_text('{}')\n"
        )
        _put_blob(azureml, f"{name}/data/one.csv", "1")
        _put_blob(azureml, f"{name}/data2/other.csv", "2")
        folder = Input(type="uri_folder", path=f"azureml://datastores/workspaceblobstore/paths/{name}/data/")

        def submit() -> list[str]:
            before = len(azureml.calls)
            job = command(
                name=f"{name}-{before}",
                code=str(source),
                command="python train.py ${{inputs.data}} ${{outputs.model}}",
                environment=environment.id,
                compute=name,
                inputs={"data": folder},
                outputs={"model": Output(type="uri_folder")},
            )
            made = ml.jobs.create_or_update(job)
            calls = [call.method for call in azureml.calls[before:]]
            assert made.studio_url.startswith("https://ml.azure.com/runs/")
            assert azureml.job(made.name).wait() == "Completed"
            assert ml.jobs.get(made.name).status == "Completed"
            assert _log(azureml, made.name) == "read one.csv\n"
            ml.jobs.download(made.name, all=True, download_path=tmp_path / "got")
            assert (tmp_path / "got/named-outputs/model/weights").read_text() == "w"
            assert (tmp_path / "got/artifacts/outputs/metrics.json").read_text() == "{}"
            return calls

        assert submit() == ["GET", "POST", "PUT", "PUT"]  # by hash, place to upload, code, job
        shutil.rmtree(tmp_path / "got")
        assert submit() == ["GET", "GET", "PUT"]  # by hash, code, job
        ml.compute.begin_delete(name).result()
        with pytest.raises(ResourceNotFoundError):
            ml.compute.get(name)

    def test_cancel(self, ml: Any, azureml: AzureMLService, environment: str, name: str) -> None:
        from azure.ai.ml import command

        ml.jobs.create_or_update(command(name=name, command="sleep 100", environment=environment))
        azureml.job(name).wait_for("Running")
        ml.jobs.begin_cancel(name).result()
        assert ml.jobs.get(name).status == "Canceled"
        with pytest.raises(HttpResponseError, match="cannot be canceled"):
            ml.jobs.begin_cancel(name).result()

    def test_change_of_a_cluster_and_start_of_an_instance(self, ml: Any, name: str) -> None:
        from azure.ai.ml.entities import AmlCompute, ComputeInstance

        for most in (1, 3):
            cluster = AmlCompute(name=name, size="Standard_DS3_v2", max_instances=most, location="eastus")
            assert ml.compute.begin_create_or_update(cluster).result().max_instances == most
        ml.compute.begin_create_or_update(ComputeInstance(name=f"{name}i", size="Standard_DS3_v2")).result()
        ml.compute.begin_stop(f"{name}i").result()
        assert ml.compute.get(f"{name}i").state == "Stopped"
        ml.compute.begin_start(f"{name}i").result()
        assert ml.compute.get(f"{name}i").state == "Running"
        assert {name, f"{name}i"} <= {one.name for one in ml.compute.list()}


class TestWire:
    def test_login_and_api_version_are_wanted(self, azureml: AzureMLService, send: Send) -> None:
        refused = _without_login(f"{azureml.endpoint}{azureml.place.id}?api-version=1")
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
            send("PUT", path, _environment(conda)).status_code for conda in ("name: a\n", "name:   a\n", "name: b\n")
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
        self, send: Send, submit: Callable[..., str], azureml: AzureMLService, faults: Faults
    ) -> None:
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
        assert seen == active[::-1]
        assert seen[0] == job
        if len(seen) > 1:
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


class TestRunning:
    def test_inputs_outputs_and_variables(self, azureml: AzureMLService, submit: Callable[..., str], name: str) -> None:
        _put_blob(azureml, f"{name}/in/deep/a.txt", "A")
        _put_blob(azureml, f"{name}/one.yaml", "Y")
        at = f"azureml://datastores/workspaceblobstore/paths/{name}"
        blobs = f"{azureml.account_url}/{azureml.default_container}/{name}"
        job = submit(
            "cat ${{inputs.folder}}/deep/a.txt ${{inputs.file}} ${{inputs.byurl}}/a.txt\n"
            "echo ${{inputs.lr}} $[[--x ${{inputs.no}}]] $KEY $AZUREML_RUN_ID\n"
            "stat -c %a ${{inputs.folder}}/deep/a.txt\n"
            "echo m > ${{outputs.m}}/m; echo n > ${{outputs.n}}/n",
            inputs={
                "folder": {"jobInputType": "uri_folder", "uri": f"{at}/in/", "mode": "ReadOnlyMount"},
                "file": {"jobInputType": "uri_file", "uri": f"{at}/one.yaml", "mode": "Download"},
                "byurl": {"jobInputType": "uri_folder", "uri": f"{blobs}/in/deep", "mode": "Download"},
                "lr": {"jobInputType": "literal", "value": "0.1"},
            },
            outputs={
                "m": {"jobOutputType": "uri_folder"},
                "n": {"jobOutputType": "uri_folder", "mode": "Upload", "uri": f"{at}/out/"},
            },
            environmentVariables={"KEY": "value of ${{inputs.lr}}"},
        )
        assert azureml.job(job).wait() == "Completed", azureml.job(job).error
        assert _log(azureml, job) == f"AYA0.1 value of 0.1 {job}\n444\n"
        container = azureml.default_container
        assert [one.name for one in azureml.storage.under(container, f"azureml/{job}/")] == [f"azureml/{job}/m/m"]
        assert [one.name for one in azureml.storage.under(container, f"{name}/out/")] == [f"{name}/out/n"]

    def test_code_is_copied_and_log_and_outputs_show_while_it_runs(
        self, azureml: AzureMLService, send: Send, submit: Callable[..., str], name: str, tmp_path: Path
    ) -> None:
        _put_blob(azureml, f"{name}/code/pkg/a.py", "print('from a', flush=True)\n")
        uri = f"{azureml.account_url}/{azureml.default_container}/{name}/code"
        code = send("PUT", f"/codes/{name}/versions/1", {"properties": {"codeUri": uri}}).json()["id"]
        go_on = tmp_path / "go ahead"
        job = submit(
            f"python pkg/a.py; echo s > ${{{{outputs.m}}}}/state; echo o > outputs/o; "
            f"while ! [ -e '{go_on}' ]; do sleep 0.05; done; rm ${{{{outputs.m}}}}/state",
            codeId=code,
            outputs={"m": {"jobOutputType": "uri_folder"}},
        )
        state = azureml.storage.blob(azureml.default_container, f"azureml/{job}/m/state")
        _eventually(
            lambda: state.exists() and azureml.storage.blob("azureml", f"ExperimentRun/dcid.{job}/outputs/o").exists()
        )
        _eventually(lambda: _log(azureml, job) == "from a\n")
        assert azureml.job(job).status == "Running"
        go_on.touch()
        assert azureml.job(job).wait() == "Completed"
        assert not state.exists()

    def test_failure_tells_its_reason(self, azureml: AzureMLService, send: Send, submit: Callable[..., str]) -> None:
        job = submit("echo oh no >&2; exit 3")
        assert azureml.job(job).wait() == "Failed"
        error = send("GET", f"/history/v1.0{azureml.place.id}/runs/{job}/details").json()["error"]["error"]
        assert error["code"] == "UserError"
        assert "status code 3" in json.loads(error["message"])["NonCompliant"]
        assert "oh no" in json.loads(error["message"])["NonCompliant"]

    def test_missing_input(self, azureml: AzureMLService, submit: Callable[..., str]) -> None:
        uri = "azureml://datastores/workspaceblobstore/paths/nothing/here.csv"
        job = submit("true", inputs={"f": {"jobInputType": "uri_file", "uri": uri}})
        assert azureml.job(job).wait() == "Failed"
        assert "nothing/here.csv" in str(azureml.job(job).error)

    def test_cancel_lets_a_program_end_itself(
        self, azureml: AzureMLService, send: Send, submit: Callable[..., str]
    ) -> None:
        program = (
            "import signal, sys, time\n"
            "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), print('saved'), sys.exit(0)))\n"
            "print('ready', flush=True)\n"
            "time.sleep(60)\n"
        )
        job = submit(f'python -c "{program}"; echo not reached')
        _eventually(lambda: azureml.job(job).status == "Running" and _log_or_nothing(azureml, job) == "ready\n")
        assert send("POST", f"/jobs/{job}/cancel").text() == "null"
        assert azureml.job(job).wait() == "Canceled"
        assert azureml.job(job).statuses[-2:] == ["CancelRequested", "Canceled"]
        assert _log(azureml, job) == "ready\nsaved\n"

    def test_time_limit(self, azureml: AzureMLService, submit: Callable[..., str]) -> None:
        job = submit("sleep 60", limits={"jobLimitsType": "Command", "timeout": "PT0.2S"})
        assert azureml.job(job).wait() == "Canceled"
        assert "time limit" in str(azureml.job(job).error)

    @pytest.mark.parametrize(
        ("distribution", "shown", "expected"),
        [
            (
                {"distributionType": "PyTorch", "processCountPerInstance": 2},
                "$RANK/$WORLD_SIZE $LOCAL_RANK $NODE_RANK ${MASTER_PORT:+port}",
                ["0/4 0 0 port", "1/4 1 0 port", "2/4 0 1 port", "3/4 1 1 port"],
            ),
            (
                {"distributionType": "Mpi", "processCountPerInstance": 1},
                "$OMPI_COMM_WORLD_RANK/$OMPI_COMM_WORLD_SIZE $OMPI_COMM_WORLD_LOCAL_RANK",
                ["0/2 0", "1/2 0"],
            ),
            (
                {"distributionType": "TensorFlow", "workerCount": 2, "parameterServerCount": 1},
                "$(echo $TF_CONFIG | python -c 'import json,sys; print(json.load(sys.stdin)[\"task\"])')",
                ["{'type': 'worker', 'index': 0}", "{'type': 'worker', 'index': 1}", "{'type': 'ps', 'index': 0}"],
            ),
        ],
        ids=["pytorch", "mpi", "tensorflow"],
    )
    def test_ranks(
        self,
        azureml: AzureMLService,
        submit: Callable[..., str],
        distribution: dict[str, Any],
        shown: str,
        expected: list[str],
    ) -> None:
        job = submit(f'echo "{shown}"', distribution=distribution, resources={"instanceCount": 2})
        assert azureml.job(job).wait() == "Completed", azureml.job(job).error
        logs = [_log(azureml, job, f"std_log_process_{rank}.txt") for rank in range(len(expected))]
        assert logs == [f"{text}\n" for text in expected]

    def test_one_failed_rank_ends_the_others(self, azureml: AzureMLService, submit: Callable[..., str]) -> None:
        job = submit(
            "[ $RANK = 1 ] && exit 5; sleep 60",
            distribution={"distributionType": "PyTorch", "processCountPerInstance": 2},
        )
        assert azureml.job(job).wait(20) == "Failed"
        assert "status code 5" in str(azureml.job(job).error)

    def test_jobs_wait_for_nodes(
        self, azureml: AzureMLService, send: Send, environment: str, name: str, tmp_path: Path
    ) -> None:
        send("PUT", f"/computes/{name}", _cluster())
        go_on = tmp_path / "go-on"
        asked = {
            "jobType": "Command",
            "command": f"while ! [ -e {go_on} ]; do sleep 0.05; done",
            "environmentId": environment,
            "computeId": f"{azureml.place.id}/computes/{name}",
            "resources": {"instanceCount": 2},
        }
        for job in (f"{name}-1", f"{name}-2"):
            send("PUT", f"/jobs/{job}", {"properties": asked})
            azureml.job(job).wait_for("Queued" if job.endswith("2") else "Running")
        counts = send("GET", f"/computes/{name}").json()["properties"]["properties"]["nodeStateCounts"]
        assert counts["runningNodeCount"] == 2
        assert azureml.job(f"{name}-2").status == "Queued"
        assert send("DELETE", f"/computes/{name}").status_code == 409
        too_many = {**asked, "resources": {"instanceCount": 3}}
        assert send("PUT", f"/jobs/{name}-3", {"properties": too_many}).status_code == 400
        go_on.touch()
        assert [azureml.job(f"{name}-{number}").wait() for number in (1, 2)] == ["Completed"] * 2


def _log_or_nothing(service: AzureMLService, job: str) -> str:
    try:
        return _log(service, job)
    except ResourceNotFoundError:
        return ""


def test_a_process_ends_with_its_service(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys\n"
        "from tests.support.azureml_service.processes import start\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "print(start('sleep 60 & wait', folder, dict(os.environ), folder / 'log').process.pid, flush=True)\n"
        "os._exit(0)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], cwd=root, capture_output=True, text=True, check=True
    )
    _eventually(lambda: not _alive_in(done.stdout.strip()))


def _alive_in(group: str) -> list[str]:
    """Processes of the group that have not ended."""
    shown = subprocess.run(["ps", "-eo", "pgid=,stat=,args="], capture_output=True, text=True, check=True).stdout
    found = [line.split(None, 2) for line in shown.splitlines()]
    return [" ".join(rest) for pgid, stat, *rest in found if pgid == group and not stat.startswith("Z")]


def test_datastores_of_those_who_log_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_certificate(tmp_path)
    options = ["--cert", str(made.certificate), "--key", str(made.key), "--oauth", "basic"]
    with (
        running_azurite(options) as azurite,
        AzureMLService(tmp_path / "service", azurite, storage_authority=made.authority) as service,
    ):
        service.faults.has_identity_datastores = True
        for name, value in service.stock_variables.items():
            monkeypatch.setenv(name, value)
        with DefaultAzureCredential() as credential:
            for account_url in (service.account_url, f"https://{azurite.account}.blob.core.windows.net"):
                with BlobServiceClient(account_url, credential=credential) as client:
                    names = {one.name for one in client.list_containers()}
                assert names == {service.default_container, "azureml"}


class TestFaults:
    def test_answers_given_instead(self, send: Send, faults: Faults) -> None:
        faults.answer(429, "GET .*/datastores$", times=2, retry_after_s=1)
        faults.answer(503, "GET .*/computes$")
        throttled = send("GET", "/datastores")
        assert (throttled.status_code, throttled.headers["Retry-After"]) == (429, "1")
        assert [send("GET", "/computes").status_code for _ in range(2)] == [503, 200]
        assert [send("GET", "/datastores").status_code for _ in range(2)] == [429, 200]
        faults.deny("/listSecrets", "x/action")
        assert "x/action" in send("POST", "/datastores/workspaceblobstore/listSecrets").json()["error"]["message"]

    def test_lost_answer(
        self, send: Send, faults: Faults, environment: str, name: str, azureml: AzureMLService
    ) -> None:
        faults.lose_answer("PUT .*/jobs/")
        asked = {"jobType": "Command", "command": "true", "environmentId": environment}
        with pytest.raises(ServiceResponseError):
            send("PUT", f"/jobs/{name}", {"properties": asked})
        assert send("GET", f"/jobs/{name}").status_code == 200
        assert send("PUT", f"/jobs/{name}", {"properties": asked}).status_code == 200
        assert [call.status for call in azureml.calls_like(f"PUT .*/jobs/{name}$")] == [0, 200]

    def test_latency(self, send: Send, faults: Faults) -> None:
        send("GET", "")
        faults.latency_s = 0.3
        began = time.monotonic()
        send("GET", "")
        assert time.monotonic() - began >= 0.3

    def test_clock(self, send: Send, faults: Faults) -> None:
        faults.clock_ahead_s = 3600.0
        date = parsedate_to_datetime(send("GET", "").headers["Date"])
        assert 3500 < date.timestamp() - time.time() < 3700

    @pytest.mark.parametrize("way", ["refused", "operation", "nodes"])
    def test_quota(self, send: Send, faults: Faults, azureml: AzureMLService, name: str, way: str) -> None:
        faults.quota = way  # type: ignore[assignment]
        created = send("PUT", f"/computes/{name}", _cluster())
        if way == "refused":
            assert created.status_code == 400
            assert "quota of 0" in created.json()["error"]["message"]
            assert send("GET", f"/computes/{name}").status_code == 404
            return
        operation = created.headers["Azure-AsyncOperation"]
        assert "Retry-After" not in created.headers
        _eventually(lambda: send("GET", operation).json()["status"] != "InProgress")
        properties = send("GET", f"/computes/{name}").json()["properties"]
        if way == "operation":
            assert send("GET", operation).json()["error"]["code"] == "ClusterCoreQuotaReached"
            assert properties["provisioningState"] == "Failed"
            assert "quota" in properties["provisioningErrors"][0]["error"]["message"]
        else:
            assert properties["provisioningState"] == "Succeeded"
            assert "quota" in properties["properties"]["errors"][0]["error"]["message"]

    def test_secrets(self, send: Send, faults: Faults) -> None:
        path = "/datastores/workspaceblobstore/listSecrets"
        faults.secrets = "sas"
        assert send("POST", path, {"expirableSecret": True}).json()["secretsType"] == "Sas"
        faults.secrets = "denied"
        assert send("POST", path).status_code == 403

    def test_image_build_fails(
        self, send: Send, faults: Faults, submit: Callable[..., str], name: str, azureml: AzureMLService
    ) -> None:
        faults.image_build_fails = True
        environment = send("PUT", f"/environments/{name}/versions/1", _environment()).json()["id"]
        job = submit("true", environmentId=environment)
        assert azureml.job(job).wait() == "Failed"
        assert azureml.job(job).statuses[-2:] == ["Preparing", "Failed"]
        details = send("GET", f"/history/v1.0{azureml.place.id}/runs/{job}/details").json()
        assert "Image build failed" in details["error"]["error"]["message"]
        assert "azureml-logs/20_image_build_log.txt" in details["logFiles"]
        assert "Pip failed" in _artifact(azureml, job, "azureml-logs/20_image_build_log.txt")

    def test_held_queue_and_cancel_in_it(
        self, send: Send, faults: Faults, submit: Callable[..., str], azureml: AzureMLService
    ) -> None:
        faults.holds_queue = True
        job = submit("echo x")
        azureml.job(job).wait_for("Queued")
        send("POST", f"/jobs/{job}/cancel")
        assert azureml.job(job).wait() == "Canceled"
        assert not azureml.storage.blob("azureml", f"ExperimentRun/dcid.{job}/user_logs/std_log.txt").exists()

    def test_logs_listed_late_and_last_lines_later_still(
        self, send: Send, faults: Faults, submit: Callable[..., str], azureml: AzureMLService
    ) -> None:
        faults.logs_listed_after_s = faults.last_lines_after_s = 3600.0
        job = submit("seq 10")
        details = f"/history/v1.0{azureml.place.id}/runs/{job}/details"
        azureml.job(job).wait_for("Running")
        assert send("GET", details).json()["logFiles"] == {}
        azureml.job(job).wait_for("Completed")
        faults.logs_listed_after_s = 0.0
        assert "user_logs/std_log.txt" in send("GET", details).json()["logFiles"]
        assert _log(azureml, job).splitlines()[-1] == "7"
        faults.last_lines_after_s = 0.0
        azureml.job(job).wait()
        assert _log(azureml, job).splitlines()[-1] == "10"

    def test_log_addresses_can_be_read_until_they_are_old(
        self, send: Send, faults: Faults, submit: Callable[..., str], azureml: AzureMLService
    ) -> None:
        job = submit("echo hello")
        azureml.job(job).wait()
        read = []
        for faults.signed_for_s in (600.0, -60.0):
            details = send("GET", f"/history/v1.0{azureml.place.id}/runs/{job}/details").json()
            answer = _without_login(details["logFiles"]["user_logs/std_log.txt"])
            read.append((answer.status_code, "hello\n" in answer.text()))
        assert read == [(200, True), (403, False)]

    @pytest.mark.parametrize(("way", "expected"), [("rewritten", "two\n"), ("continued", "one\ntwo\n")])
    def test_preempted_node(
        self,
        faults: Faults,
        submit: Callable[..., str],
        azureml: AzureMLService,
        way: str,
        expected: str,
    ) -> None:
        faults.log_after_preemption = way  # type: ignore[assignment]
        job = submit(
            "[ -e here ] && exit 1; touch here\n"
            "if [ -e ${{outputs.m}}/state ]; then echo two; exit; fi\n"
            "echo one; touch ${{outputs.m}}/state; sleep 60 & wait",
            outputs={"m": {"jobOutputType": "uri_folder"}},
        )
        state = azureml.storage.blob(azureml.default_container, f"azureml/{job}/m/state")
        _eventually(state.exists)
        azureml.preempt(job)
        assert azureml.job(job).wait() == "Completed", azureml.job(job).error
        assert azureml.job(job).statuses.count("Running") == 2
        assert _log(azureml, job) == expected
