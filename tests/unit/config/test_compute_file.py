from __future__ import annotations

from pathlib import Path

import pytest

from amlctl.config.compute_file import read_compute, read_compute_files
from amlctl.core.compute import (
    ClusterTarget,
    FieldDifference,
    LocalTarget,
    differences,
    duration_s,
    merged,
    with_defaults,
)
from amlctl.errors import NotFound, SettingsError
from amlctl.localfs.project import Project
from amlctl.workspaces.azureml.compute_document import present
from tests.support.rights import ROOT_READS_ALL, run_without_root_rights

CLUSTER = """\
$schema: https://azuremlschemas.azureedge.net/latest/amlCompute.schema.json
name: gpu
type: amlcompute
size: Standard_NC4as_T4_v3
tier: low_priority
min_instances: 0
max_instances: 4
idle_time_before_scale_down: 900
identity:
  type: user_assigned
  user_assigned_identities:
    - resource_id: /subscriptions/x
"""


def write(folder: Path, text: str, name: str = "gpu.yaml") -> Path:
    path = folder / "compute" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_a_cluster_is_read(tmp_path: Path) -> None:
    assert read_compute(write(tmp_path, CLUSTER)) == ClusterTarget(
        "gpu",
        "amlcompute",
        size="Standard_NC4as_T4_v3",
        tier="low_priority",
        min_instances=0,
        max_instances=4,
        idle_time_before_scale_down=900,
        rest={"identity": {"type": "user_assigned", "user_assigned_identities": [{"resource_id": "/subscriptions/x"}]}},
    )


def test_an_instance_and_this_machine_are_read(tmp_path: Path) -> None:
    instance = "type: ComputeInstance\nsize: Standard_DS3_v2\nidle_time_before_shutdown_minutes: 30\n"
    assert read_compute(write(tmp_path, instance, "desk.yaml")) == ClusterTarget(
        "desk", "computeinstance", size="Standard_DS3_v2", rest={"idle_time_before_shutdown_minutes": 30}
    )
    assert read_compute(write(tmp_path, "type: local\n", "here.yaml")) == LocalTarget("here", 1, None)
    assert read_compute(write(tmp_path, "name: local\ntype: local\nslots: 3\ngpus: 2\n")) == LocalTarget("local", 3, 2)


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("name: gpu\n", 1, "type is missing", "amlcompute"),
        ("name: gpu\ntype: amlcomput\n", 2, "amlcomput", "amlcompute?"),
        ("type: local\nslot: 4\n", 2, "slot", "slots?"),
        ("type: local\nsize: big\n", 2, "size", "slots"),
        ("type: local\nslots: 0\n", 2, "slots", ""),
        ("type: local\nslots: true\n", 2, "slots", ""),
        ("type: local\nslots: 1.5\n", 2, "slots", ""),
        ("type: local\ngpus: -1\n", 2, "gpus", ""),
        ("type: local\nname: 3\n", 2, "name", ""),
        ("type: amlcompute\nmin_instances: 2\nmax_instances: 1\n", 2, "more than", ""),
        ("type: amlcompute\ntier: cheap\n", 2, "dedicated, low_priority", ""),
        ("type: amlcompute\nssh_settings:\n  admin_password: hunter22\n", 2, "password", ""),
        ("type: amlcompute\nmin_instances: few\n", 2, "whole number", ""),
        ("type: local\nslots: 1\nslots: 2\n", 3, "twice", ""),
        ("- a\n", 1, "not a compute target", "name and type"),
        ("", 1, "not a compute target", ""),
        ("type: [\n", 2, "YAML", ""),
    ],
)
def test_a_broken_file_says_where(tmp_path: Path, text: str, line: int, message: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_compute(write(tmp_path, text))
    assert caught.value.message.startswith(f"compute/gpu.yaml:{line}: ")
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "hunter22" not in caught.value.message + caught.value.hint


def test_all_files_of_a_project(tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert read_compute_files(project).targets == []
    write(tmp_path, CLUSTER)
    write(tmp_path, "type: local\n", "local.yml")
    write(tmp_path, "not looked at", "README.md")
    (tmp_path / "compute" / "lost.yaml").symlink_to("nowhere")
    assert [target.name for target in read_compute_files(project).targets] == ["gpu", "local"]
    write(tmp_path, CLUSTER, "other.yaml")
    files = read_compute_files(project)
    assert [target.name for target in files.targets] == ["local"]
    with pytest.raises(SettingsError, match=r"gpu\.yaml and compute/other\.yaml"):
        files.find("gpu")
    with pytest.raises(NotFound, match=r"compute/none\.yaml"):
        read_compute(tmp_path / "compute" / "none.yaml")


def test_a_file_that_cannot_be_used_matters_only_by_its_name(tmp_path: Path) -> None:
    write(tmp_path, CLUSTER)
    write(tmp_path, "name: lake\ntype: synapsespark\n", "spark.yml")
    write(tmp_path, "a: [\n", "torn.yaml")
    write(tmp_path, "x", "folder.yaml/x")
    files = read_compute_files(Project(tmp_path))
    assert [target.name for target in files.targets] == ["gpu"]
    assert [(one.path.name, one.name) for one in files.broken] == [
        ("folder.yaml", "folder"),
        ("spark.yml", "lake"),
        ("torn.yaml", "torn"),
    ]
    assert files.find("gpu") is not None
    assert files.find("spark") is None
    for name in ("lake", "torn"):
        with pytest.raises(SettingsError, match=r"compute/\w+\.ya?ml:\d"):
            files.find(name)


def test_digits_in_quotes_are_a_number(tmp_path: Path) -> None:
    """As they are to Azure ML."""
    target = read_compute(write(tmp_path, "type: amlcompute\nmin_instances: '2'\nmax_instances: 4\n"))
    assert isinstance(target, ClusterTarget)
    assert (target.min_instances, target.max_instances) == (2, 4)


def test_differences_are_field_by_field() -> None:
    present = ClusterTarget(
        "gpu",
        "amlcompute",
        size="STANDARD_NC4AS_T4_V3",
        tier="Dedicated",
        location="westus",
        min_instances=0,
        max_instances=4,
        rest={"tags": {"team": "a", "by": "us"}, "enable_node_public_ip": True},
    )
    same = ClusterTarget("gpu", "amlcompute", size="standard_nc4as_t4_v3", rest={"tags": {"team": "a"}})
    assert differences(present, same) == []
    other = ClusterTarget(
        *("gpu", "amlcompute", "Standard_NC6"),
        min_instances=1,
        max_instances=4,
        rest={"tags": {"team": "A"}, "enable_node_public_ip": False},
    )
    assert differences(present, other) == [
        FieldDifference("size", "STANDARD_NC4AS_T4_V3", "Standard_NC6"),
        FieldDifference("min_instances", 0, 1),
        FieldDifference("tags.team", "a", "A"),
        FieldDifference("enable_node_public_ip", True, False),
    ]


def test_values_are_compared_as_the_service_does() -> None:
    document = {
        "name": "gpu",
        "identity": {"type": "UserAssigned", "userAssignedIdentities": {"/subscriptions/X": {"clientId": "c"}}},
        "properties": {
            "computeType": "AmlCompute",
            "provisioningState": "Succeeded",
            "properties": {"subnet": {"id": "/subscriptions/s/virtualNetworks/net/subnets/Inner"}},
        },
    }
    there = present(document).target
    users = [{"resource_id": "/subscriptions/x"}]
    same = ClusterTarget(
        "gpu",
        "amlcompute",
        rest={
            "identity": {"type": "user_assigned", "user_assigned_identities": users},
            "network_settings": {"subnet": "inner"},
        },
    )
    assert differences(there, same) == []
    other = ClusterTarget("gpu", "amlcompute", rest={"identity": {"type": "system_assigned"}})
    assert [change.field for change in differences(there, other)] == ["identity.type"]
    for text, seconds in (("PT1M40S", 100), ("PT2H", 7200), ("P1DT1S", 86401), ("PT", None), ("", None), ("1m", None)):
        assert duration_s(text) == seconds
    assert duration_s("PT" + "9" * 5000 + "S") is None


def test_what_a_file_leaves_open() -> None:
    made = with_defaults(ClusterTarget("gpu", "amlcompute", min_instances=6))
    assert (made.min_instances, made.max_instances, made.idle_time_before_scale_down) == (6, 6, 120)
    assert made.node_hours_a_month == 6 * 730
    said = ClusterTarget("desk", "computeinstance", rest={"idle_time_before_shutdown": "PT3H"})
    assert with_defaults(said) == said
    assert with_defaults(ClusterTarget("desk", "computeinstance")).rest == {"idle_time_before_shutdown_minutes": 60}


def test_a_change_is_laid_over_what_is_there() -> None:
    there = ClusterTarget("gpu", "amlcompute", size="A", min_instances=2, rest={"tags": {"a": "1", "b": "2"}})
    wanted = ClusterTarget("gpu", "amlcompute", min_instances=0, rest={"tags": {"b": "3"}})
    assert merged(there, wanted) == ClusterTarget(
        "gpu", "amlcompute", size="A", min_instances=0, rest={"tags": {"a": "1", "b": "3"}}
    )


def test_zero_and_false_are_wanted_values() -> None:
    present = ClusterTarget("gpu", "amlcompute", min_instances=1, rest={"ssh_public_access_enabled": True})
    wanted = ClusterTarget("gpu", "amlcompute", min_instances=0, rest={"ssh_public_access_enabled": False})
    assert [change.field for change in differences(present, wanted)] == ["min_instances", "ssh_public_access_enabled"]


def test_a_local_target_is_not_a_cluster() -> None:
    assert "type" in {change.field for change in differences(LocalTarget("x"), ClusterTarget("x", "amlcompute"))}
    assert differences(LocalTarget("x", 1, 2), LocalTarget("x", 2)) == [FieldDifference("slots", 1, 2)]


@ROOT_READS_ALL
def test_a_folder_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path) -> None:
    write(tmp_path, "type: local\nslots: 3\n", "local.yaml")
    (tmp_path / "compute").chmod(0)
    try:
        listed = run_without_root_rights(
            "import sys; from pathlib import Path; from amlctl.localfs.project import Project;"
            "from amlctl.config.compute_file import read_compute_files; read_compute_files(Project(Path(sys.argv[1])))",
            str(tmp_path),
        )
    finally:
        (tmp_path / "compute").chmod(0o755)
    assert "RightsError" in listed.stderr
    assert f"cannot read {tmp_path / 'compute'}: permission denied" in listed.stderr
