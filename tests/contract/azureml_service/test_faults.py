"""The loopback Azure ML misbehaves when it is told to."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from azure.core.exceptions import ServiceResponseError
from azure.identity import DefaultAzureCredential
from azure.storage.blob import BlobServiceClient

from tests.contract.azureml_service.requests import (
    Send,
    artifact,
    cluster_document,
    environment_document,
    log_of,
    without_login,
)
from tests.support.azureml_service import AzureMLService, Faults
from tests.support.azurite import running_azurite
from tests.support.runs import wait_until
from tests.support.throwaway_ca import make_certificate


@pytest.mark.usefixtures("azurite_installed")
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
        created = send("PUT", f"/computes/{name}", cluster_document())
        if way == "refused":
            assert created.status_code == 400
            assert "quota of 0" in created.json()["error"]["message"]
            assert send("GET", f"/computes/{name}").status_code == 404
            return
        operation = created.headers["Azure-AsyncOperation"]
        assert "Retry-After" not in created.headers
        wait_until(lambda: send("GET", operation).json()["status"] != "InProgress")
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
        environment = send("PUT", f"/environments/{name}/versions/1", environment_document()).json()["id"]
        job = submit("true", environmentId=environment)
        assert azureml.job(job).wait() == "Failed"
        assert azureml.job(job).statuses[-2:] == ["Preparing", "Failed"]
        details = send("GET", f"/history/v1.0{azureml.place.id}/runs/{job}/details").json()
        assert "Image build failed" in details["error"]["error"]["message"]
        assert "azureml-logs/20_image_build_log.txt" in details["logFiles"]
        assert "Pip failed" in artifact(azureml, job, "azureml-logs/20_image_build_log.txt")

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
        assert log_of(azureml, job).splitlines()[-1] == "7"
        faults.last_lines_after_s = 0.0
        azureml.job(job).wait()
        assert log_of(azureml, job).splitlines()[-1] == "10"

    def test_log_addresses_can_be_read_until_they_are_old(
        self, send: Send, faults: Faults, submit: Callable[..., str], azureml: AzureMLService
    ) -> None:
        job = submit("echo hello")
        azureml.job(job).wait()
        read = []
        for faults.signed_for_s in (600.0, -60.0):
            details = send("GET", f"/history/v1.0{azureml.place.id}/runs/{job}/details").json()
            answer = without_login(details["logFiles"]["user_logs/std_log.txt"])
            read.append((answer.status_code, "hello\n" in answer.text()))
        assert read == [(200, True), (403, False)]

    @pytest.mark.parametrize(
        ("way", "expected"), [("rewritten", "two\n"), ("continued", "one\ntwo\n"), ("apart", "one\n")]
    )
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
        wait_until(state.exists)
        azureml.preempt(job)
        assert azureml.job(job).wait() == "Completed", azureml.job(job).error
        assert azureml.job(job).statuses.count("Running") == 2
        assert log_of(azureml, job) == expected
