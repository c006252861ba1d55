"""What amlctl sends to create things in Azure ML, against what a script of the SDK sends for the same input."""

from __future__ import annotations

import base64
import itertools
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from amlctl.azure_access.azure_ai_ml import azure_ai_ml
from amlctl.core.compute import ClusterTarget
from amlctl.core.environment import EnvironmentSpec
from amlctl.core.events import null_sink
from amlctl.core.run import RunRecord
from amlctl.errors import AmlctlError
from amlctl.stores.azure_blob.address import parse_address
from amlctl.workspaces.azureml.assets import (
    ENVIRONMENT_NAME,
    Assets,
    conda_document,
    ensure_code,
    ensure_environment,
    version_of,
)
from amlctl.workspaces.azureml.compute import Computes
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.datastores import default_datastore, store_address
from amlctl.workspaces.azureml.job import JobParts, job_document
from amlctl.workspaces.azureml.starting import submit_job
from tests.support.azureml_bench import settings_for
from tests.support.azureml_service import AzureMLService, Call
from tests.support.runs import make_project, run_record

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:marshmallow", "ignore::DeprecationWarning:azure")

_OF_THE_LINE = {
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "host",
    "user-agent",
    "x-ms-client-request-id",
    "x-ms-correlation-request-id",
    "x-azureml-token",  # compared by what it says
}
"""Headers that each request, each connection, or each client has of its own."""
_DISTRIBUTIONS = ("", "pytorch", "mpi", "tensorflow")
_IDENTITIES = ("", "user_identity", "managed", "aml_token")
_RESOURCES: tuple[Mapping[str, Any], ...] = (
    {},
    {"docker_args": "--cap-add SYS_PTRACE", "shm_size": "8g"},
    {"docker_args": ["--ipc", "host"]},
    {"instance_type": "Standard_E4s_v3", "properties": {"a": {"b": 1}}},
)
_VARIANTS = list(itertools.product(_DISTRIBUTIONS, _IDENTITIES, range(len(_RESOURCES))))
Sent = tuple[Mapping[str, str], Any]


@pytest.fixture
def connection(azureml: AzureMLService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connection]:
    for name, value in azureml.variables.items():
        monkeypatch.setenv(name, value)
    opened = Connection(settings_for(azureml), make_project(tmp_path / "project"), os.environ, sleep=lambda s: None)
    with azureml.faults.while_testing():
        yield opened
    opened.close()


@pytest.fixture(scope="module")
def client(azureml: AzureMLService) -> Any:
    with azure_ai_ml(), pytest.MonkeyPatch.context() as variables:
        from azure.ai.ml import MLClient
        from azure.identity import DefaultAzureCredential

        for name, value in azureml.variables.items():
            variables.setenv(name, value)
        variables.delenv("AZUREML_CURRENT_CLOUD", raising=False)
        return MLClient(
            DefaultAzureCredential(),
            azureml.subscription_id,
            azureml.resource_group,
            azureml.workspace_name,
            polling_interval=0.05,
        )


@pytest.fixture
def script(client: Any, connection: Connection) -> Iterator[Any]:
    """The client of a script that uses the SDK as it is documented."""
    with azure_ai_ml():
        os.environ.pop("AZUREML_CURRENT_CLOUD", None)
        yield client


@pytest.fixture
def refused(azureml: AzureMLService) -> Callable[[Callable[[], Any]], Call]:
    """The PUT of a job that is recorded and refused, so that nothing runs."""
    from azure.core.exceptions import HttpResponseError

    def send(action: Callable[[], Any]) -> Call:
        before = len(azureml.calls)
        azureml.faults.answer(400, "PUT .*/jobs/")
        with pytest.raises((AmlctlError, HttpResponseError)):
            action()
        [call] = azureml.calls[before:]
        return call

    return send


def _sent(call: Call) -> Sent:
    headers = {name: value for name, value in call.headers.items() if name not in _OF_THE_LINE}
    return headers, call.body


def _claims(token: str) -> Any:
    middle = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))


def _record(number: int, distribution: str, identity: str, resources: Mapping[str, Any]) -> RunRecord:
    node: dict[str, Any] = {"resources": dict(resources)} if resources else {}
    if identity:
        node["identity"] = {"type": identity, **({"client_id": "c"} if identity == "managed" else {})}
    if number % 3 == 0:
        node["queue_settings"] = {"job_tier": "spot"}
    if number % 5 == 0:
        node["services"] = {"board": {"type": "tensor_board", "log_dir": "outputs/board"}}
    return run_record(
        f"wire-{uuid.uuid4().hex[:8]}",
        "train.py",
        experiment="wire",
        arguments=["--rate", "0.1"],
        description="on the wire" if number % 2 else "",
        compute="serverless" if number % 4 == 0 else "gpu",
        distribution=distribution or None,
        processes=2,
        instances=1 + number % 3,
        timeout_s=3600.4 if number % 2 else None,
        variables={"MODE": "fast", "TOKEN": None},
        tags={"team": "vision"},
        node=node,
    )


def _parts(connection: Connection) -> JobParts:
    workspace = connection.address.id
    return JobParts(
        code_id=f"{workspace}/codes/amlctl/versions/c1",
        environment=f"azureml:{workspace}/environments/amlctl-env/versions/e1",
        store_uri="azureml://datastores/workspaceblobstore/paths/amlctl/",
        saves_uri="azureml://datastores/workspaceblobstore/paths/amlctl/runs/r/",
    )


def _as_in_a_script(record: RunRecord, parts: JobParts, text: str) -> Any:
    """The same run in the words of the SDK's reference, which know nothing of YAML."""
    from azure.ai.ml import (
        Input,
        MpiDistribution,
        Output,
        PyTorchDistribution,
        TensorFlowDistribution,
        command,
    )
    from azure.ai.ml.entities import (
        AmlTokenConfiguration,
        ManagedIdentityConfiguration,
        TensorBoardJobService,
        UserIdentityConfiguration,
    )

    distributions: dict[str, Any] = {
        "pytorch": PyTorchDistribution(process_count_per_instance=2),
        "mpi": MpiDistribution(process_count_per_instance=2),
        "tensorflow": TensorFlowDistribution(worker_count=record.spec.process_group.world_size),
    }
    identities: dict[str, Any] = {
        "user_identity": UserIdentityConfiguration(),
        "managed": ManagedIdentityConfiguration(client_id="c"),
        "aml_token": AmlTokenConfiguration(),
    }
    more: dict[str, Any] = dict(record.spec.node.get("resources") or {})
    properties = more.pop("properties", None)
    if "queue_settings" in record.spec.node:
        more["job_tier"] = "spot"
    if "services" in record.spec.node:
        more["services"] = {"board": TensorBoardJobService(log_dir="outputs/board")}
    job = command(
        name=record.run,
        display_name=record.run,
        experiment_name="wire",
        description=record.spec.description or "train.py --rate 0.1",
        command=text,
        code=parts.code_id,
        environment=parts.environment.removeprefix("azureml:"),
        compute=None if record.spec.compute == "serverless" else record.spec.compute,
        inputs={"store": Input(type="uri_folder", mode="ro_mount", path=parts.store_uri)},
        outputs={"saves": Output(type="uri_folder", mode="rw_mount", path=parts.saves_uri)},
        instance_count=record.spec.instances,
        distribution=distributions.get(record.spec.distribution or ""),
        identity=identities.get(str((record.spec.node.get("identity") or {}).get("type"))),
        timeout=3601 if record.spec.timeout_s else None,
        environment_variables={"MODE": "fast", "TOKEN": "secret"},
        tags={"team": "vision"},
        properties={
            "amlctl.experiment": "wire",
            "amlctl.script": "train.py",
            "amlctl.compute": record.spec.compute,
        },
        **more,
    )
    if properties:
        job.resources.properties = properties
    return job


@pytest.mark.parametrize("number", range(len(_VARIANTS)))
def test_a_job(connection: Connection, script: Any, refused: Callable[[Callable[[], Any]], Call], number: int) -> None:
    distribution, identity, resources = _VARIANTS[number]
    record = _record(number, distribution, identity, _RESOURCES[resources])
    parts = _parts(connection)
    document = job_document(record, parts, {"TOKEN": "secret"})
    ours = refused(lambda: submit_job(connection, connection.sdk.loaded_job(document)))
    theirs = refused(lambda: script.jobs.create_or_update(_as_in_a_script(record, parts, document["command"])))
    assert _sent(ours) == _sent(theirs)
    tokens = [call.headers.get("x-azureml-token") for call in (ours, theirs)]
    assert [token is not None for token in tokens] == [identity == "user_identity"] * 2
    audiences = [_claims(token)["aud"] for token in tokens if token]
    assert audiences == (["https://ml.azure.com"] * 2 if identity == "user_identity" else [])


def test_nothing_is_asked_beside_the_put(connection: Connection, azureml: AzureMLService) -> None:
    """Names and versions are known, so the SDK has nothing to look up, and does not look at the job before."""
    azureml.faults.answer(400, "PUT .*/jobs/")
    before = len(azureml.calls)
    document = job_document(_record(1, "", "user_identity", {}), _parts(connection), {})
    with pytest.raises(AmlctlError):
        submit_job(connection, connection.sdk.loaded_job(document))
    assert [call.method for call in azureml.calls[before:]] == ["PUT"]


@pytest.mark.parametrize(
    "spec",
    [
        EnvironmentSpec(python="3.11", pip=("numpy", "torch==2.1")),
        EnvironmentSpec(python=">=3.10", conda=("git",), channels=("pytorch", "conda-forge"), image="example.org/base"),
        EnvironmentSpec(image="example.org/alone", is_bare=True),
    ],
)
def test_an_environment(connection: Connection, script: Any, azureml: AzureMLService, spec: EnvironmentSpec) -> None:
    from azure.ai.ml.entities import Environment

    azureml.faults.answer(404, "GET .*/environments/")
    ensure_environment(connection, spec)
    conda = None if spec.is_bare else conda_document(spec)
    script.environments.create_or_update(
        Environment(name=ENVIRONMENT_NAME, version=version_of(spec), image=spec.image, conda_file=conda)
    )
    ours, theirs = azureml.calls_like(f"PUT .*/environments/{ENVIRONMENT_NAME}/versions/{version_of(spec)}$")
    assert _sent(ours) == _sent(theirs)


def test_data(connection: Connection, script: Any, azureml: AzureMLService) -> None:
    from azure.ai.ml.entities import Data

    name, store_url = f"d{uuid.uuid4().hex[:8]}", default_datastore(connection).url
    root, _ = store_address(connection, store_url)
    before = len(azureml.calls)
    Assets(connection).register_mirror(name, store_url, "raw", "s1", is_file=False)
    own = [call.method for call in azureml.calls[before:]]
    data = Data(name=name, version="s1", path=f"{root}mirror/raw/", type="uri_folder")
    data.description, data.tags = "mirrored dataset raw", {"amlctl.dataset": "raw", "amlctl.snapshot": "s1"}
    script.data.create_or_update(data)
    ours, theirs = azureml.calls_like(f"PUT .*/data/{name}/versions/s1$")
    assert _sent(ours) == _sent(theirs)
    assert own == [call.method for call in azureml.calls[before + len(own) :]]
    with pytest.raises(AmlctlError) as caught:
        Assets(connection).register_mirror(name, store_url, "other", "s1", is_file=False)
    assert (caught.value.kind, name in caught.value.message) == ("conflict", True)


@pytest.mark.parametrize("kind", ["amlcompute", "computeinstance"])
def test_compute(connection: Connection, script: Any, azureml: AzureMLService, tmp_path: Path, kind: str) -> None:
    from azure.ai.ml import load_compute

    text = "type: {kind}\nname: {name}\nsize: Standard_DS3_v2\nlocation: eastus\ntags: {{a: b}}\n" + (
        "min_instances: 0\nmax_instances: 2\nidle_time_before_scale_down: 90\ntier: low_priority\n"
        "ssh_settings: {{admin_username: me, ssh_key_value: k}}\nidentity: {{type: system_assigned}}\n"
        if kind == "amlcompute"
        else "idle_time_before_shutdown_minutes: 30\nssh_public_access_enabled: false\n"
    )
    names = [f"c{uuid.uuid4().hex[:8]}" for _ in range(2)]
    files = [tmp_path / f"{name}.yaml" for name in names]
    for name, file in zip(names, files, strict=True):
        file.write_text(text.format(kind=kind, name=name))
    target = ClusterTarget(names[0], kind, file=str(files[0]))
    Computes(connection, poll_s=0.01).create(target, null_sink)
    script.compute.begin_create_or_update(load_compute(files[1])).result()
    ours, theirs = (azureml.calls_like(f"PUT .*/computes/{name}$")[0] for name in names)
    assert _sent(ours) == _sent(theirs)


def test_code(connection: Connection, azureml: AzureMLService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one thing that the SDK has no public way for: a version under an id of one's own, found on any machine."""
    for name, value in azureml.stock_variables.items():
        monkeypatch.setenv(name, value)
    root = parse_address(f"{azureml.account_url}/{azureml.default_container}/amlctl")[0]
    code = uuid.uuid4().hex
    ensure_code(connection, code, root)
    [ours] = azureml.calls_like(f"PUT .*/codes/amlctl/versions/{code}$")
    (tmp_path / "src").mkdir()
    (tmp_path / "src/train.py").write_text("pass")
    azureml.faults.answer(400, "PUT .*/jobs/")
    before = len(azureml.calls)
    with azure_ai_ml():
        from azure.ai.ml import MLClient, command
        from azure.core.exceptions import HttpResponseError
        from azure.identity import DefaultAzureCredential

        where = (azureml.subscription_id, azureml.resource_group, azureml.workspace_name)
        environment = f"{azureml.place.id}/environments/x/versions/1"
        job = command(code=str(tmp_path / "src"), command="true", environment=environment)
        with pytest.raises(HttpResponseError):
            MLClient(DefaultAzureCredential(), *where).jobs.create_or_update(job)
    [theirs] = [call for call in azureml.calls[before:] if "/codes/" in call.path and call.method == "PUT"]
    assert _sent(ours)[0] == _sent(theirs)[0]
    intended = {"codeUri", "isAnonymous", "properties"}
    own, other = (dict(call.body["properties"]) for call in (ours, theirs))
    assert {key: own[key] for key in intended} == {
        "codeUri": f"{azureml.account_url}/{azureml.default_container}/amlctl/code/{code}",
        "isAnonymous": False,
        "properties": {"amlctl.tree": code},
    }
    assert (other["isAnonymous"], sorted(other["properties"])) == (True, ["hash_sha256", "hash_version"])
    assert own.keys() - intended == other.keys() - intended
