"""The real SDK, unmodified, works with the loopback Azure ML."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from tests.contract.azureml_service.requests import IMAGE, log_of, put_blob
from tests.support.azureml_service import AzureMLService


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
            Environment(name=name, version="1", image=IMAGE, conda_file=conda)
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
        put_blob(azureml, f"{name}/data/one.csv", "1")
        put_blob(azureml, f"{name}/data2/other.csv", "2")
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
            assert log_of(azureml, made.name) == "read one.csv\n"
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
