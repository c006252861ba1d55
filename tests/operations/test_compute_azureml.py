"""Compute targets of Azure ML, made by the real SDK on the loopback service."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from amlctl.core.compute import ClusterTarget
from amlctl.core.events import Event, Note, Warned, null_sink
from amlctl.core.settings import WorkspaceSettings
from amlctl.errors import AmlctlError, Conflict, NotFound, RightsError, ServiceUnavailable, SettingsError, UsageError
from amlctl.localfs.project import Project
from amlctl.operations import compute
from amlctl.stores.contract import Store
from amlctl.stores.directory import DirectoryStore
from amlctl.workspaces.azureml import clients
from amlctl.workspaces.azureml.compute import Computes
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.workspace import AzureMLWorkspace
from tests.support.azureml_bench import QUICK
from tests.support.azureml_service import AzureMLService
from tests.support.context import Context
from tests.support.runs import make_project
from tests.support.wire_faults import FAULTS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:marshmallow", "ignore::DeprecationWarning:azure")

CLUSTER = """\
$schema: https://azuremlschemas.azureedge.net/latest/amlCompute.schema.json
name: {name}
type: amlcompute
size: Standard_NC6s_v3
tier: low_priority
min_instances: {least}
max_instances: 4
idle_time_before_scale_down: 100
tags:
  team: vision
"""


class Bench(Context):
    """A project whose workspace is the service, with a target's file in `compute/`."""

    def __init__(self, project: Project, store: Store, workspace: AzureMLWorkspace, connection: Connection) -> None:
        self.events: list[Event] = []
        super().__init__(project, store, self.events.append, workspace)
        self.connection = connection
        self.name = f"gpu-{uuid.uuid4().hex[:8]}"
        self.write()

    def write(self, *, least: int = 0, text: str = CLUSTER) -> None:
        self.project.compute_dir.mkdir(exist_ok=True)
        (self.project.compute_dir / "gpu.yaml").write_text(text.format(name=self.name, least=least))

    def create(self, *, is_update: bool = False) -> compute.CreateResult:
        root = self.project.root
        return compute.create(self, self.name, cwd=root, is_update=is_update)

    def show(self) -> compute.ComputeView:
        return compute.show(self, self.name)

    def target(self) -> ClusterTarget:
        """As the service has it."""
        target = self.show().target
        assert isinstance(target, ClusterTarget)
        return target

    @property
    def messages(self) -> str:
        return "\n".join(event.message for event in self.events if isinstance(event, (Note, Warned)))


@pytest.fixture
def bench(azureml: AzureMLService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    for name, value in azureml.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(clients, "_POLL_S", 0.05)
    cloud = os.environ.get("AZUREML_CURRENT_CLOUD")
    project = make_project(tmp_path / "project")
    settings = WorkspaceSettings(
        "cloud",
        "azureml",
        subscription_id=azureml.subscription_id,
        resource_group=azureml.resource_group,
        workspace_name=azureml.workspace_name,
        endpoint=azureml.endpoint,
    )
    connection = Connection(settings, project, os.environ)
    store = DirectoryStore(tmp_path / "unused")
    workspace = AzureMLWorkspace(
        connection, lambda: store, experiment="e", open_store=lambda url: DirectoryStore(Path(url)), timing=QUICK
    )
    with azureml.faults.while_testing():
        yield Bench(project, store, workspace, connection)
    connection.close()
    assert os.environ.get("AZUREML_CURRENT_CLOUD") == cloud  # MLClient writes it


def test_a_cluster_is_made_as_its_file_says(bench: Bench, azureml: AzureMLService) -> None:
    assert bench.show().state == "not made"
    result = bench.create()
    assert (result.name, result.is_reused, result.changes) == (bench.name, False, ())
    view = bench.show()
    assert view.state == "ready"
    assert view.note == "0 of 4 nodes"
    target = bench.target()
    assert (target.size.lower(), target.tier) == ("standard_nc6s_v3", "low_priority")
    assert (target.min_instances, target.max_instances, target.idle_time_before_scale_down) == (0, 4, 100)
    assert target.rest["tags"] == {"team": "vision"}
    listed = {one.target.name: one.state for one in compute.list_targets(bench)}
    assert listed[bench.name] == "ready"
    assert listed["local"] == "ready"


def test_what_the_file_leaves_open_costs_least(bench: Bench) -> None:
    bench.write(text="name: {name}\ntype: amlcompute\nsize: Standard_DS3_v2\n")
    bench.create()
    target = bench.target()
    assert (target.min_instances, target.idle_time_before_scale_down, target.tier) == (0, 120, "dedicated")


def test_an_equal_one_is_reused(bench: Bench, azureml: AzureMLService) -> None:
    bench.create()
    before = len(azureml.calls_like(f"PUT .*/computes/{bench.name}"))
    assert bench.create().is_reused
    assert len(azureml.calls_like(f"PUT .*/computes/{bench.name}")) == before


def test_a_different_target_is_recognized_and_changed_on_request(bench: Bench) -> None:
    bench.create()
    bench.write(least=2)
    assert "differs from its file in min_instances" in bench.show().note
    with pytest.raises(Conflict) as caught:
        bench.create()
    assert caught.value.details == ("min_instances: 0 now, 2 in the file",)
    assert "--update" in caught.value.hint
    result = bench.create(is_update=True)
    assert [change.field for change in result.changes] == ["min_instances"]
    assert bench.target().min_instances == 2
    assert "1,460 node hours a month" in bench.messages


def test_what_never_changes_is_refused_in_words(bench: Bench, azureml: AzureMLService) -> None:
    bench.create()
    bench.write(text=CLUSTER.replace("Standard_NC6s_v3", "Standard_DS3_v2"))
    before = len(azureml.calls_like(f"PUT .*/computes/{bench.name}"))
    with pytest.raises(UsageError, match="size") as caught:
        bench.create(is_update=True)
    assert f"compute delete {bench.name}" in caught.value.hint
    assert caught.value.details == ("size: STANDARD_NC6S_V3 now, Standard_DS3_v2 in the file",)
    assert len(azureml.calls_like(f"PUT .*/computes/{bench.name}")) == before


NETWORK = """\
network_settings:
  vnet_name: net
  subnet: inner
ssh_public_access_enabled: false
enable_node_public_ip: false
description: for training
"""


def test_all_fields_of_the_service_are_compared(bench: Bench) -> None:
    bench.write(text=CLUSTER + NETWORK)
    bench.create()
    assert bench.create().is_reused
    target = bench.target()
    assert target.rest["network_settings"]["vnet_name"] == "net"
    assert target.rest["network_settings"]["subnet"].endswith("/virtualNetworks/net/subnets/inner")
    bench.write(text=CLUSTER + NETWORK.replace("inner", "other").replace("for training", "for all"))
    with pytest.raises(Conflict) as caught:
        bench.create()
    assert [line.partition(":")[0] for line in caught.value.details] == ["description", "network_settings.subnet"]


def test_a_change_leaves_the_rest_alone(bench: Bench, azureml: AzureMLService) -> None:
    bench.write(text=CLUSTER + NETWORK)
    bench.create()
    bench.write(text="name: {name}\ntype: amlcompute\nmax_instances: 6\ntags: {{owner: me}}\n")
    bench.create(is_update=True)
    compute.start(bench, bench.name)
    assert "730 node hours a month" in bench.messages
    target = bench.target()
    assert (target.min_instances, target.max_instances, target.idle_time_before_scale_down) == (1, 6, 100)
    assert (target.size.lower(), target.tier) == ("standard_nc6s_v3", "low_priority")
    assert target.rest["tags"] == {"team": "vision", "owner": "me"}
    assert target.rest["network_settings"]["subnet"].endswith("/subnets/inner")
    assert target.rest["ssh_public_access_enabled"] is False


SSH = """\
ssh_settings:
  admin_username: someone
  ssh_key_value: ssh-rsa AAAA
identity:
  type: user_assigned
  user_assigned_identities:
    - resource_id: /subscriptions/s/resourceGroups/r/providers/Microsoft.ManagedIdentity/userAssignedIdentities/one
"""


@pytest.mark.parametrize("how", ["start", "stop", "update"])
def test_a_change_of_a_cluster_sends_everything_else_back(bench: Bench, azureml: AzureMLService, how: str) -> None:
    """The SDK's model of a cluster would turn `NotSpecified` into `Disabled`, and leave out what it does not know."""
    bench.write(text=CLUSTER + SSH, least=1 if how == "stop" else 0)
    bench.create()
    path = f"/computes/{bench.name}"
    before = bench.connection.workspace("GET", path, "1").document
    arguments = (bench, bench.name)
    if how == "update":
        bench.write(text="name: {name}\ntype: amlcompute\nmin_instances: 2\n")
        bench.create(is_update=True)
    else:
        getattr(compute, how)(*arguments)
    [put] = azureml.calls_like(f"PUT .*{path}$")[1:]
    inner = put.body["properties"]["properties"]
    assert inner["userAccountCredentials"]["adminUserName"] == "someone"
    assert inner["userAccountCredentials"]["adminUserSshPublicKey"] == "ssh-rsa AAAA"
    assert put.body["properties"]["disableLocalAuth"] is False
    after = bench.connection.workspace("GET", path, "1").document
    for document in (before, after):
        document["properties"].pop("modifiedOn")
        for moment in ("scaleSettings", "allocationStateTransitionTime", "currentNodeCount", "targetNodeCount"):
            document["properties"]["properties"].pop(moment, None)
        document["properties"]["properties"].pop("nodeStateCounts")
    assert {**after, "systemData": None} == {**before, "systemData": None}
    assert bench.target().min_instances == {"start": 1, "stop": 0, "update": 2}[how]


@pytest.mark.parametrize(
    ("text", "reported", "hint"),
    [
        (
            "name: {name}\ntype: amlcompute\nmax_instance: 4\n",
            "gpu.yaml:3: 'max_instance' is not a key of",
            "max_instances?",
        ),
        ("name: {name}\ntype: amlcompute\nidentity: me\n", "gpu.yaml:3: identity", ""),
        (
            "name: {name}\ntype: amlcompute\nssh_settings:\n  user: me\n",
            "gpu.yaml:4: 'user' is not a key of ssh_settings",
            "",
        ),
        ("name: {name}\ntype: computeinstance\nmin_instances: 1\n", "gpu.yaml:3: 'min_instances' is not a key of", ""),
    ],
)
def test_what_the_sdk_refuses_is_reported_with_its_line(
    bench: Bench, azureml: AzureMLService, text: str, reported: str, hint: str
) -> None:
    bench.write(text=text)
    with pytest.raises(SettingsError) as caught:
        bench.create()
    assert caught.value.message.startswith(f"compute/{reported}")
    assert hint in caught.value.hint
    assert not azureml.calls_like(f"PUT .*/computes/{bench.name}")


def test_fields_that_the_service_leaves_out_are_reported(bench: Bench) -> None:
    text = "name: {name}\ntype: computeinstance\nsize: Standard_DS3_v2\nsetup_scripts: {{}}\n"
    bench.write(text=text)
    bench.create()
    assert bench.create().is_reused
    assert "does not return setup_scripts" in bench.messages


def test_one_that_failed_is_not_reused(bench: Bench, azureml: AzureMLService) -> None:
    azureml.faults.quota = "operation"
    with pytest.raises(ServiceUnavailable):
        bench.create()
    azureml.faults.quota = ""
    assert bench.show().state == "Failed"
    assert "quota" in bench.show().note
    with pytest.raises(UsageError, match="is Failed") as caught:
        bench.create()
    assert "compute delete" in caught.value.hint
    compute.delete(bench, bench.name)
    assert not bench.create().is_reused


def test_one_that_is_being_deleted_is_not_reused(bench: Bench, azureml: AzureMLService) -> None:
    bench.create()
    azureml.faults.operation_s = 600.0
    connection = bench.connection
    connection.workspace("DELETE", f"/computes/{bench.name}", "1", query={"underlyingResourceAction": "Delete"})
    for action in (bench.create, lambda: compute.checked_target(bench, bench.name)):
        with pytest.raises(UsageError, match="is being deleted"):
            action()


def test_a_run_requires_a_target_that_is_there(bench: Bench) -> None:
    with pytest.raises(NotFound, match="'nowhere' is not in"):
        compute.prepare_target(bench, "nowhere")
    assert not bench.project.compute_dir.joinpath("local.yaml").exists()
    with pytest.raises(UsageError, match="local is not one of the workspace"):
        compute.prepare_target(bench, "local")


def test_what_is_not_there_is_neither_started_nor_deleted(bench: Bench, azureml: AzureMLService) -> None:
    for look in (compute.start, compute.stop, compute.delete, compute.show):
        with pytest.raises(NotFound, match="'serverless' is not in") as caught:
            look(bench, "serverless")
        assert caught.value.hint.startswith("available: ")
    words = "The Resource 'Microsoft.MachineLearningServices/workspaces/w' under resource group 'g' was not found."
    for act in (compute.start, compute.stop, compute.delete, compute.deletable):
        azureml.faults.answer(404, "GET .*/computes/", code="ResourceNotFound", message=words)
        with pytest.raises(NotFound, match="does not find the workspace"):
            act(bench, "gpu")


def test_a_cluster_is_started_stopped_and_deleted(bench: Bench) -> None:
    bench.create()
    arguments = (bench, bench.name)
    compute.start(*arguments)
    assert bench.target().min_instances == 1
    compute.stop(*arguments)
    assert bench.target().min_instances == 0
    assert compute.delete(*arguments) == "deleted"
    assert bench.show().state == "not made"
    with pytest.raises(NotFound):
        compute.start(*arguments)


def test_an_instance_is_really_started_and_stopped(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    bench.write(text="name: {name}\ntype: computeinstance\nsize: Standard_DS3_v2\n")
    bench.create()
    assert not capfd.readouterr().err  # the SDK has its own way to it
    assert bench.target().rest["idle_time_before_shutdown_minutes"] == 60
    arguments = (bench, bench.name)
    assert compute.stop(*arguments) == "Stopped"
    with pytest.raises(UsageError, match="is Stopped") as caught:
        compute.prepare_target(bench, bench.name)
    assert "compute start" in caught.value.hint
    assert compute.start(*arguments) == "Running"


@pytest.mark.parametrize("quota", ["refused", "operation", "nodes"])
def test_an_exhausted_quota_is_reported(bench: Bench, azureml: AzureMLService, quota: str) -> None:
    azureml.faults.quota = quota  # type: ignore[assignment]
    with pytest.raises(ServiceUnavailable) as caught:
        bench.create()
    assert caught.value.message.startswith(f"no quota for {bench.name}: ")
    assert "Quotas" in caught.value.hint


@pytest.mark.parametrize("fault", ["lost", "throttled", "failing"])
def test_a_request_of_the_sdk_is_repeated_as_our_own(bench: Bench, azureml: AzureMLService, fault: str) -> None:
    if fault == "lost":
        azureml.faults.lose_answer("PUT .*/computes/")
    else:
        azureml.faults.answer(429 if fault == "throttled" else 503, "PUT .*/computes/", retry_after_s=0.1)
    bench.create()
    assert bench.show().state == "ready"
    assert len(azureml.calls_like(f"PUT .*/computes/{bench.name}")) == 2


def test_a_missing_role_is_reported(bench: Bench, azureml: AzureMLService) -> None:
    azureml.faults.deny("PUT .*/computes/", "Microsoft.MachineLearningServices/workspaces/computes/write")
    with pytest.raises(RightsError) as caught:
        bench.create()
    assert "Compute Operator" in caught.value.hint


def test_a_rule_of_the_subscription_is_not_a_missing_role(bench: Bench, azureml: AzureMLService) -> None:
    words = f"Resource '{bench.name}' was disallowed by policy."
    azureml.faults.answer(403, "PUT .*/computes/", code="RequestDisallowedByPolicy", message=words)
    with pytest.raises(RightsError, match="disallowed by policy") as caught:
        bench.create()
    assert "policies of the subscription" in caught.value.hint
    bench.create()
    azureml.faults.answer(409, "DELETE .*/computes/", code="ScopeLocked")
    with pytest.raises(RightsError) as caught:
        compute.delete(bench, bench.name)
    assert "az lock list" in caught.value.hint


def test_the_local_target_is_not_part_of_the_workspace(bench: Bench) -> None:
    (bench.project.compute_dir / "local.yaml").write_text("name: local\ntype: local\n")
    with pytest.raises(AmlctlError, match="this machine"):
        compute.create(bench, "local", cwd=bench.project.root)


def test_a_wait_for_the_service_has_a_limit(bench: Bench, azureml: AzureMLService) -> None:
    bench.create()
    azureml.faults.operation_s = 600.0
    computes = Computes(bench.connection, sleep=lambda seconds: None, clock=itertools.count(step=600.0).__next__)
    with pytest.raises(ServiceUnavailable, match="within 30 minutes") as caught:
        computes.delete(bench.name, null_sink)
    assert "compute show" in caught.value.hint


def test_a_reply_that_leaves_out_what_it_is_changes_nothing(bench: Bench, azureml: AzureMLService) -> None:
    bench.create()
    before = len(azureml.calls_like("(PUT|POST) .*/computes/"))
    azureml.faults.wire = lambda method, target: FAULTS["inner-nulls"] if f"/computes/{bench.name}" in target else None
    for act in (compute.stop, compute.start, compute.delete):
        with pytest.raises(ServiceUnavailable, match="does not name its type"):
            act(bench, bench.name)
    assert len(azureml.calls_like("(PUT|POST) .*/computes/")) == before
