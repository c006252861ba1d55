"""The example at the root of the repository, from nothing to a trained model, on the loopback Azure ML.

It needs the packages of `pptdaml.yaml`: AMLCTL_TEST_EXAMPLE_PYTHON names an interpreter that has them, as
`amlctl env prepare` makes one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.azureml_service import AzureMLService
from tests.support.azureml_service.settings import settings_text
from tests.support.azurite import Azurite

ROOT = Path(__file__).parents[2]
DATASET = "image/classification/screenshot"
PATCHES = f"data_blobs/working/{DATASET}/64x64"
LIMIT_S = 600


@pytest.fixture
def service(azurite: Azurite, tmp_path: Path) -> Iterator[AzureMLService]:
    interpreter = os.environ.get("AMLCTL_TEST_EXAMPLE_PYTHON", "")
    if not interpreter:
        pytest.skip("AMLCTL_TEST_EXAMPLE_PYTHON names no interpreter with the packages of pptdaml.yaml")
    with AzureMLService(tmp_path / "azureml", azurite, interpreter=Path(interpreter)) as running:
        yield running


Amlctl = Callable[..., Any]


def _machine(service: AzureMLService, root: Path) -> Amlctl:
    """A clone of the project on a machine of its own; its commands, which have to succeed, as documents."""
    shutil.copytree(ROOT / "pipeline", root / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    make_raw = root / "pipeline" / DATASET / "make_raw.py"
    program = make_raw.read_text()
    for there, smaller in (("SHOTS = 3 ", "SHOTS = 1 "), ("SIZE = 768 ", "SIZE = 384 ")):  # an eighth of the work
        assert there in program
        program = program.replace(there, smaller)
    make_raw.write_text(program)
    shutil.copy(ROOT / "pptdaml.yaml", root)
    (root / ".amlctl.toml").write_text(settings_text(service, experiment="example"))

    def run(*arguments: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "amlctl", "--json", *arguments],
            cwd=root,
            env={**os.environ, **service.stock_variables},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    return run


def test_from_nothing_to_a_trained_model(service: AzureMLService, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    amlctl = _machine(service, one)
    assert amlctl("submit", "make_raw.py")["status"] == "Completed"
    amlctl("sync", "--pull", f"data_blobs/raw/{DATASET}")
    assert len(list((one / "data_blobs/raw").rglob("*.jpg"))) == 24

    cut = amlctl("submit", "preprocess.py")
    assert cut["status"] == "Completed"
    [snapshot] = cut["published"].values()

    trained = amlctl(
        "submit", "model_train.py", "--config", "baseline.json", "--set", "epochs=3", "--set", "batch_size=16"
    )
    assert (trained["status"], trained["exit_code"]) == ("Completed", 0)
    log = amlctl("logs", trained["run"])["log"]
    assert "648 patches to train with, 216 held out" in log
    assert "held-out accuracy" in log.splitlines()[-2] + log.splitlines()[-1]
    shown = amlctl("runs")["runs"]
    assert [run["status"] for run in shown] == ["Completed"] * 3

    # Another machine, which has seen nothing of all this.
    elsewhere = _machine(service, other)
    elsewhere("fetch", trained["run"])
    outputs = other / "outputs" / trained["run"]
    found = {path.name: path.read_bytes() for path in outputs.rglob("*") if path.is_file()}
    pictures = [data for name, data in found.items() if name.endswith(".png")]
    assert len(pictures) == 2
    assert all(data.startswith(b"\x89PNG\r\n") for data in pictures)
    assert 0.6 < json.loads(found["metrics.json"])["test_accuracy"] <= 1
    assert any(len(data) > 100_000 for data in found.values())
    assert elsewhere("sync", "--pull", PATCHES)["snapshot"] == snapshot
    assert len(list((other / PATCHES).rglob("*.png"))) == 864
