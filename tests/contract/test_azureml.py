"""The Azure ML workspace keeps the promises of every workspace, on a loopback Azure ML that runs jobs for real."""
# ruff: noqa: F811  (fixtures)

from __future__ import annotations

import base64
import os
import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from amlctl.core.events import Event, Note, RunStateChanged
from amlctl.core.store_keys import record_key
from amlctl.errors import LoginError, NotFound, RightsError, ServiceUnavailable
from amlctl.operations.fetch import fetch
from amlctl.operations.logs import follow
from amlctl.runs.records import save_record
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.workspace import AzureMLWorkspace
from tests.contract.workspace import WAITS_FOR_A_SIGNAL, Bench, WorkspaceSuite
from tests.support.azureml_bench import bench, opened_bench, pointed_at, settings_for  # noqa: F401  (fixtures)
from tests.support.azureml_service import AzureMLService
from tests.support.azureml_service.job import Job
from tests.support.runs import make_project, wait_until

_CLAIMS = base64.b64encode(b'{"access_token": {"nbf": {"essential": true, "value": "1"}}}').decode()


def assert_submitted(bench: Bench, azureml: AzureMLService) -> Job:
    """The job of a new run; it is taken out of the queue again, so that no node runs it."""
    azureml.faults.holds_queue = True
    job = azureml.job(bench.start("pass"))
    wait_until(lambda: bench.workspace.read(job.name).status == "Queued")
    job.ask_to_cancel()
    azureml.faults.holds_queue = False
    return job


class TestAzureMLWorkspace(WorkspaceSuite):
    @pytest.fixture
    def bench(self, bench: Bench) -> Bench:
        return bench


@pytest.mark.parametrize("pattern", ["PUT .*/jobs/", "PUT .*/codes/", "PUT .*/environments/"])
def test_a_lost_answer_makes_no_second_job(bench: Bench, azureml: AzureMLService, pattern: str) -> None:
    azureml.faults.lose_answer(pattern)
    job = assert_submitted(bench, azureml)
    assert len([call for call in azureml.calls_like(f"PUT .*/jobs/{job.name}$") if call.status in (201, 200)]) <= 1


def test_an_error_after_the_job_was_made_is_looked_into(bench: Bench, azureml: AzureMLService) -> None:
    azureml.faults.answer(500, "PUT .*/jobs/", times=2)
    assert_submitted(bench, azureml)


@pytest.mark.parametrize("challenge", ["", f'Bearer error="insufficient_claims", claims="{_CLAIMS}"'])
@pytest.mark.parametrize("pattern", ["PUT .*/jobs/", "POST .*/listSecrets"])
def test_a_token_that_was_revoked_is_asked_for_again(
    bench: Bench, azureml: AzureMLService, pattern: str, challenge: str
) -> None:
    headers = {"WWW-Authenticate": challenge} if challenge else None
    azureml.faults.answer(401, pattern, headers=headers)
    job = assert_submitted(bench, azureml)
    assert len(azureml.calls_like(f"PUT .*/jobs/{job.name}$")) == (2 if "jobs" in pattern else 1)


@pytest.mark.parametrize("pattern", ["PUT .*/jobs/", "PUT .*/codes/"])
def test_a_login_without_a_second_factor_gets_the_command_for_one(
    bench: Bench, azureml: AzureMLService, pattern: str
) -> None:
    headers = {"WWW-Authenticate": f'Bearer error="insufficient_claims", claims="{_CLAIMS}"'}
    azureml.faults.answer(401, pattern, headers=headers, code="RequestDisallowedByAzure", message="MFA", times=9)
    with pytest.raises(LoginError) as caught:
        bench.start("pass")
    assert f"--claims-challenge {_CLAIMS} " in caught.value.hint
    azureml.faults.answer(403, pattern, code="RequestDisallowedByPolicy", message="MFA is required", times=9)
    with pytest.raises(LoginError):
        bench.start("pass")


def test_a_service_that_fails_at_the_job_gets_time_to_recover(azureml: AzureMLService, tmp_path: Path) -> None:
    pauses: list[float] = []
    with opened_bench(azureml, tmp_path, sleep=pauses.append) as bench:
        azureml.faults.answer(503, "PUT .*/jobs/", retry_after_s=7)
        azureml.faults.answer(503, "PUT .*/jobs/")
        assert_submitted(bench, azureml)
    assert pauses[0] == 7
    assert len(pauses) == 2
    assert 0 < pauses[1] < 7


def test_a_submit_that_is_throttled_for_long_has_made_no_run(azureml: AzureMLService, tmp_path: Path) -> None:
    """The service reported that it did nothing, so the state of the run is known."""
    with opened_bench(azureml, tmp_path, sleep=lambda seconds: None) as bench:
        azureml.faults.answer(429, "PUT .*/jobs/", times=99)
        with pytest.raises(ServiceUnavailable) as caught:
            bench.start("pass")
        assert (caught.value.kind, "throttling" in caught.value.message) == ("unavailable", True)
        [listed] = bench.workspace.list_runs()
        assert (listed.status, listed.error and listed.error["kind"]) == ("Failed", "unavailable")


def test_a_job_that_came_late_is_found_when_the_next_try_is_refused(bench: Bench, azureml: AzureMLService) -> None:
    azureml.faults.lose_answer("PUT .*/jobs/")
    azureml.faults.answer(404, "GET .*/jobs/")
    azureml.faults.answer(400, "PUT .*/jobs/", times=2)
    assert_submitted(bench, azureml)


def test_what_fails_after_the_run_was_made_does_not_fail_the_run(azureml: AzureMLService, tmp_path: Path) -> None:
    with opened_bench(azureml, tmp_path, sleep=lambda seconds: None) as bench:
        azureml.faults.answer(503, "GET .*/workspaces/[^/]+$", times=5)
        assert_submitted(bench, azureml)


def test_throttling_is_waited_for(bench: Bench, azureml: AzureMLService) -> None:
    azureml.faults.answer(429, "PUT .*/jobs/", retry_after_s=1)
    azureml.faults.answer(429, "GET .*/details", times=2, retry_after_s=0)
    assert_submitted(bench, azureml)


@pytest.mark.parametrize("is_gone", [False, True])
def test_why_a_run_is_queued(
    bench: Bench, azureml: AzureMLService, monkeypatch: pytest.MonkeyPatch, is_gone: bool
) -> None:
    monkeypatch.setattr("amlctl.operations.logs.WAIT_S", 0.2)  # the state stays, so no change is seen before
    name = f"c{uuid.uuid4().hex[:8]}"
    cluster = {"computeType": "AmlCompute", "properties": {"vmSize": "S", "scaleSettings": {"maxNodeCount": 1}}}
    connection = Connection(settings_for(azureml), bench.project, os.environ)
    connection.workspace(
        "PUT", f"/computes/{name}", "2023-08-01-preview", {"location": "eastus", "properties": cluster}
    )
    connection.close()
    azureml.faults.quota = "nodes"
    run = bench.start("print('ran')", compute=name)
    if is_gone:
        azureml.faults.answer(404, f"GET .*/computes/{name}$", code="NotFoundError", times=99)
    reported: list[str] = []

    def sink(event: Event) -> None:
        if isinstance(event, RunStateChanged):
            reported.append(event.reason)
            if event.reason:
                azureml.faults.quota = ""

    assert follow(replace(bench, sink=sink), run).waits_for == ""
    if is_gone:
        assert any(reason.startswith(f"compute target {name} does not exist any more") for reason in reported)
    else:
        assert any(reason.startswith(f"{name} gets no nodes: ") and "quota" in reason.lower() for reason in reported)


@pytest.mark.parametrize("status", [401, 403, 502])
def test_a_workspace_behind_a_private_link_is_not_a_missing_role(
    azureml: AzureMLService, tmp_path: Path, status: int
) -> None:
    """Of which this machine may know addresses from before it had one: they are asked for again."""
    connection = Connection(settings_for(azureml), make_project(tmp_path / "project"), os.environ, sleep=lambda _: None)
    words = "Access to workspace was denied based on workspace private link configuration."
    facts = connection.facts
    azureml.faults.answer(status, "GET .*/details", code="UserError", message=words, times=5)
    with pytest.raises(RightsError, match="reached from its own network only") as caught:
        connection.history("GET", "/runs/train-1/details")
    assert "VPN" in caught.value.hint
    asked = len(azureml.calls)
    assert connection.facts == facts
    assert len(azureml.calls) > asked
    connection.close()


@pytest.mark.parametrize(("chosen", "asked"), [(None, None), ("user_identity", "UserIdentity"), ("managed", "Managed")])
def test_the_identity_of_a_job_is_chosen_by_the_user(
    azureml: AzureMLService, tmp_path: Path, chosen: str | None, asked: str | None
) -> None:
    """Also where the datastore has no key; a job that works as the user gets a token of theirs."""
    azureml.faults.has_identity_datastores = True
    with opened_bench(azureml, tmp_path, identity=chosen) as bench:
        job = assert_submitted(bench, azureml)
    assert (job.asked.get("identity") or {}).get("identityType") == asked
    [put] = azureml.calls_like(f"PUT .*/jobs/{job.name}$")
    assert ("x-azureml-token" in put.headers) == (chosen == "user_identity")


def test_plain_jobs_of_others_are_shown(bench: Bench, azureml: AzureMLService) -> None:
    """One that another tool has made in the same experiment: listed, read, its log followed."""
    own = assert_submitted(bench, azureml)
    workspace = bench.workspace
    assert isinstance(workspace, AzureMLWorkspace)
    name = f"plain{uuid.uuid4().hex[:8]}"
    asked = {
        "jobType": "Command",
        "command": "mkdir -p outputs/graphs logs && echo 1 >outputs/graphs/a.txt && echo 2 >${{outputs.model}}/b.txt; "
        "echo 3 >logs/events.txt; echo hello; exit 3",
        "outputs": {"model": {"jobOutputType": "uri_folder", "mode": "ReadWriteMount"}},
        "environmentId": own.asked["environmentId"],
        "experimentName": bench.fields["experiment"],
    }
    connection = workspace._connection
    connection.workspace("PUT", f"/jobs/{name}", "2025-01-01-preview", {"properties": asked})
    record = bench.finished(name)
    assert (record.status, record.exit_code, record.spec.compute) == ("Failed", 3, "serverless")
    assert bench.log(name) == b"hello\n"
    outputs = f"ExperimentRun/dcid.{name}/outputs"
    for folder in ("graphs", "nothing", "deep/nothing"):  # as a mount leaves folders behind
        azureml.storage.blob("azureml", f"{outputs}/{folder}").upload_blob(b"", metadata={"hdi_isfolder": "true"})
    azureml.storage.blob("azureml", f"{outputs}/empty.txt").upload_blob(b"")
    azureml.storage.send_text("other", "azureml", f"ExperimentRun/dcid.{name}0/outputs/other.txt")
    assert [one.run for one in workspace.list_runs()] == [name, own.name]
    target = bench.project.outputs_dir / name
    for files in (4, 0):
        fetched = fetch(replace(bench, workspace=workspace), name, include=["*"])
        assert (fetched.files, fetched.downloaded_files) == (4, files)
    assert (target / "logs/events.txt").read_text() == "3\n"
    assert (target / "graphs/a.txt").read_text() == "1\n"
    assert (target / "model/b.txt").read_text() == "2\n"
    azureml.storage.send_text("of outputs", "azureml", f"{outputs}/logs/events.txt")
    both = bench.project.outputs_dir / "both"
    assert fetch(replace(bench, workspace=workspace), name, to=both).files == 5
    assert (both / "logs/events.txt").read_text() == "of outputs"
    assert (both / "amlctl-logs/events.txt").read_text() == "3\n"
    with pytest.raises(NotFound):
        bench.store.get(f"runs/{name}/record.json")


def test_a_list_waits_for_no_logs(azureml: AzureMLService, tmp_path: Path) -> None:
    pauses: list[float] = []
    with opened_bench(azureml, tmp_path, settle=pauses.append) as bench:
        run = bench.start("print('last')")
        azureml.job(run).wait()
        [listed] = bench.workspace.list_runs()
        assert (listed.run, listed.status, listed.exit_code, pauses) == (run, "Completed", 0, [])
        assert listed.times["Completed"]
        # A list does not ask the store for the notes of the node.
        assert replace(bench.workspace.read(run), phases=[], resources={}) == listed
        assert bench.store.get(f"runs/{run}/logs/std_log.txt") == b"last\n"


def test_a_list_in_a_busy_workspace_asks_for_a_few_pages(bench: Bench, azureml: AzureMLService) -> None:
    """It lists what was submitted here, however old; active runs are read from the service."""
    old = assert_submitted(bench, azureml).name
    azureml.faults.holds_queue = True
    going = bench.start("pass")
    shown = {"jobType": "Command", "experimentName": "of others", "status": "Completed"}
    azureml.jobs.strangers = [{"name": f"stranger{number}", "properties": shown} for number in range(900)]
    azureml.faults.page_size = 1
    before = len(azureml.calls)
    try:
        assert {record.run for record in bench.workspace.list_runs()} == {old, going}
    finally:
        azureml.jobs.strangers = []
    assert len([call for call in azureml.calls[before:] if call.path.endswith("/jobs")]) == 10
    azureml.job(going).ask_to_cancel()


def test_a_run_of_the_project_is_found_in_a_busy_workspace(
    azureml: AzureMLService, bench: Bench, tmp_path: Path
) -> None:
    """By the service itself, however many jobs of others came later; a limit that was reached is said."""
    run = assert_submitted(bench, azureml).name
    shown = {"jobType": "Command", "experimentName": "of others", "status": "Completed", "description": "x" * 2000}
    azureml.jobs.strangers = [{"name": f"stranger{number}", "properties": shown} for number in range(900)]
    reported: list[Event] = []
    try:
        with opened_bench(
            azureml, tmp_path / "other", experiment=bench.fields["experiment"], sink=reported.append
        ) as other:
            before = len(azureml.calls)
            assert [record.run for record in other.workspace.list_runs()] == [run]
            lists = [call for call in azureml.calls[before:] if call.path.endswith("/jobs")]
    finally:
        azureml.jobs.strangers = []
    assert len(lists) == 10
    assert {call.headers["accept-encoding"] for call in lists} == {"gzip"}
    assert "among the newest" in "".join(event.message for event in reported if isinstance(event, Note))


def test_what_a_job_has_left_is_deleted_with_its_run(bench: Bench, azureml: AzureMLService) -> None:
    record = bench.run("import os; open(os.environ['AMLCTL_OUTPUTS_DIR'] + '/deep.txt', 'w').write('1')")
    kept = bench.run("pass")
    folder = f"ExperimentRun/dcid.{record.run}/"
    assert list(azureml.storage.under("azureml", folder))
    assert ["archived" in what for what in bench.workspace.delete(record.run)] == [True]
    assert not list(azureml.storage.under("azureml", folder))
    assert not list(bench.store.list(f"runs/{record.run}/"))
    assert list(azureml.storage.under("azureml", f"ExperimentRun/dcid.{kept.run}/"))


def test_a_run_that_was_archived_in_studio_is_not_a_deleted_one(bench: Bench, azureml: AzureMLService) -> None:
    run = bench.start("print('kept')")
    azureml.job(run).wait_for("Completed")
    azureml.job(run).asked["isArchived"] = True
    assert bench.workspace.read(run).status == "Completed"
    assert bench.log(run) == b"kept\n"
    bench.workspace.delete(run)
    with pytest.raises(NotFound, match="was deleted"):
        bench.workspace.read(run)


def test_outputs_that_were_given_a_path_stay_and_are_named(bench: Bench, azureml: AzureMLService) -> None:
    own = assert_submitted(bench, azureml)
    name = f"plain{uuid.uuid4().hex[:8]}"
    uri = f"azureml://datastores/{azureml.storage.default_datastore}/paths/of/others/"
    folder = {"jobOutputType": "uri_folder", "mode": "ReadWriteMount"}
    asked = {
        "jobType": "Command",
        "command": "echo 1 >${{outputs.model}}/a.txt; echo 2 >${{outputs.given}}/b.txt",
        "outputs": {"model": folder, "given": {**folder, "uri": uri}},
        "environmentId": own.asked["environmentId"],
        "experimentName": bench.fields["experiment"],
    }
    workspace = bench.workspace
    assert isinstance(workspace, AzureMLWorkspace)
    workspace._connection.workspace("PUT", f"/jobs/{name}", "2025-01-01-preview", {"properties": asked})
    assert bench.finished(name).status == "Completed"
    container = azureml.storage.default_container
    assert list(azureml.storage.under(container, f"azureml/{name}/"))
    stays = bench.workspace.delete(name)
    assert [uri in what for what in stays] == [False, True]
    assert not list(azureml.storage.under(container, f"azureml/{name}/"))
    assert list(azureml.storage.under(container, "of/others/"))


def test_a_run_that_azure_ml_does_not_have_can_be_deleted(bench: Bench, azureml: AzureMLService) -> None:
    record = bench.record("pass", status="Running", created_at="2026-01-01T00:00:00+00:00")
    save_record(bench.store, record)
    assert bench.workspace.read(record.run).status == "NotResponding"
    assert bench.workspace.delete(record.run) == []
    with pytest.raises(NotFound):
        bench.workspace.read(record.run)


def test_another_machine_sees_the_run(azureml: AzureMLService, bench: Bench, tmp_path: Path) -> None:
    run = bench.start(WAITS_FOR_A_SIGNAL)
    with opened_bench(azureml, tmp_path / "other", experiment=bench.fields["experiment"]) as other:
        other.wait_for_log(run, b"ready")
        assert run in (other.workspace.read(run).studio_url or "")
        assert [one.run for one in other.workspace.list_runs()] == [run]
        other.workspace.cancel(run)
        ended = other.finished(run)
    assert ended.status == "Canceled"
    assert bench.workspace.read(run) == ended


def test_a_damaged_record_is_taken_from_the_store_again(bench: Bench) -> None:
    run, other = bench.start("print('one')"), bench.start("print('two')")
    ended, _ = bench.finished(run), bench.finished(other)
    file = bench.project.state_dir / "runs" / run / "record.json"
    stored = bench.store.get(record_key(run))
    for old, new in (
        (b'"Completed"', b'"Complfted"'),
        (b'"status"', b'"stAtus"'),
        (b'"times": {', b'"times": [], "x": {'),
    ):
        data = file.read_bytes()
        assert old in data
        file.write_bytes(data.replace(old, new, 1))
        assert {one.run for one in bench.workspace.list_runs()} == {run, other}
        assert bench.workspace.read(run) == ended
        assert bench.store.get(record_key(run)) == stored
        assert file.read_bytes() == data


def test_a_run_that_never_arrived(bench: Bench) -> None:
    """It was recorded, and the machine that was to hand it over is gone."""
    record = bench.record("pass", created_at="2026-01-01T00:00:00+00:00")
    save_record(bench.store, record)
    lost = bench.workspace.read(record.run)
    assert (lost.status, lost.error and lost.error["kind"]) == ("Failed", "lost")
    fresh = bench.record("pass")
    save_record(bench.store, fresh)
    assert bench.workspace.read(fresh.run).status == "NotStarted"
    bench.workspace.cancel(fresh.run)
    assert bench.workspace.read(fresh.run).status == "Canceled"


def test_the_run_can_write_to_its_own_folder_only(bench: Bench, azureml: AzureMLService) -> None:
    job = assert_submitted(bench, azureml)
    assert job.asked["outputs"]["saves"]["uri"].endswith(f"/amlctl/runs/{job.name}/")
