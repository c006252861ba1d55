"""`doctor --probe` on Azurite and the loopback Azure ML: a table, and nothing left behind, whatever fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.operations.test_azureml import Amlctl, Done, amlctl, project, service
from tests.support.azureml_service import AzureMLService
from tests.support.schemas import check_document

__all__ = ["amlctl", "project", "service"]


def assert_nothing_is_left(service: AzureMLService, project: Path, done: Done) -> None:
    container = service.storage.default_datastore  # it has the name of its datastore
    assert not [blob.name for blob in service.storage.under(container, "amlctl/") if "amlctl-probe" in blob.name]
    assert not [blob.name for blob in service.storage.under("azureml", "ExperimentRun/") if "-probe-" in blob.name]
    for job in service.jobs.all():
        if job.name.startswith("amlctl-probe"):
            assert job.has_ended
            assert job.asked["isArchived"]
    assert not [path for path in (project / ".amlctl/runs").glob("*") if "probe" in path.name]
    steps = {step["name"]: step for step in done.document["probe"]}
    for kind in ("environment", "code"):
        assert steps[f"{kind}: remove"]["message"].startswith(("archived", "deleted", "did not exist"))


def test_everything_is_tried_and_removed(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    done = amlctl("--json", "doctor", "--probe")
    assert done.code == 0, done.out
    check_document("probe", done.document)
    steps = {step["name"]: step for step in done.document["probe"]}
    for name in ("blob: create", "blob: swap", "environment: change", "code: read", "job: log", "job: output"):
        assert steps[name]["ok"], steps[name]
    assert steps["job: log"]["message"].endswith("nothing is refused")
    assert {"amlctl", "azure-ai-ml", "azure-storage-blob"} <= done.document["versions"].keys()
    for secret in (service.subscription_id, service.resource_group, service.storage.azurite.account):
        assert secret not in done.out
    assert_nothing_is_left(service, project, done)
    kinds = {job.asked["isArchived"] for job in service.jobs.all() if job.name.startswith("amlctl-probe")}
    assert kinds == {True}


@pytest.mark.parametrize(
    ("pattern", "failed"),
    [
        ("PUT .*/environments/", "environment: create"),
        ("PUT .*/codes/", "code: create"),
        ("PUT .*/jobs/amlctl-probe", "job: create"),
        ("PATCH .*/experiments/amlctl-probe/", "job: change"),
    ],
)
def test_a_step_that_fails_is_a_row_and_leaves_nothing(
    amlctl: Amlctl, project: Path, service: AzureMLService, pattern: str, failed: str
) -> None:
    service.faults.answer(403, pattern)
    done = amlctl("--json", "doctor", "--probe")
    assert done.code == 1
    steps = {step["name"]: step for step in done.document["probe"]}
    assert not steps[failed]["ok"]
    assert "403" in steps[failed]["message"]
    assert_nothing_is_left(service, project, done)


def test_an_unknown_target_is_reported_before_anything_is_made(
    amlctl: Amlctl, project: Path, service: AzureMLService
) -> None:
    (project / "compute/later.yml").write_text("name: later\ntype: amlcompute\nsize: Standard_DS3_v2\n")
    before = len(service.calls_like("^PUT"))
    for name in ("nowhere", "local", "later"):
        done = amlctl("doctor", "--probe", "--compute", name)
        assert done.code in (2, 4), done.err
        assert f"compute target {name}" in done.err.replace("'", "")
    assert len(service.calls_like("^PUT")) == before


def test_the_table_can_be_pasted(amlctl: Amlctl, project: Path) -> None:
    done = amlctl("--workspace", "local", "doctor", "--probe")
    lines = done.out.splitlines()
    assert done.code == 0, done.out
    assert lines[2:4] == ["| step | result | s | observed |", "| --- | --- | ---: | --- |"]
    assert lines[-1].startswith("| blob: remove | ok | ")
    assert {line.count(" | ") for line in lines[4:]} == {3}
    assert amlctl("doctor", "--compute", "gpu").code == 2
