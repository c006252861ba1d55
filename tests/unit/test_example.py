"""The example project at the root of the repository, as far as it can be looked at without its dependencies."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from amlctl.config.compute_file import read_compute_files
from amlctl.config.environment_file import read_environment
from amlctl.config.script_config import read_script_block
from amlctl.config.settings import load_settings
from amlctl.core.compute import ClusterTarget, LocalTarget
from amlctl.localfs.project import Project

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "pipeline" / "image" / "classification" / "screenshot"
RAW = "raw/image/classification/screenshot"
PATCHES = "working/image/classification/screenshot/64x64"

SHOW_FOLDERS = (
    "import json, file_paths as f;"
    "print(json.dumps({n: str(getattr(f, n)()) for n in "
    "('pipeline_dir', 'data_blobs_dir', 'raw_dir', 'working_dir', 'outputs_dir')}))"
)


def folders(pipeline: Path, cwd: Path, **variables: str) -> dict[str, str]:
    """What file_paths.py in `pipeline` says to a script that is started in `cwd`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AMLCTL_")}
    answer = subprocess.run(
        [sys.executable, "-c", SHOW_FOLDERS],
        cwd=cwd,
        env={**environment, "PYTHONPATH": str(pipeline), "PYTHONDONTWRITEBYTECODE": "1", **variables},
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, str] = json.loads(answer.stdout)
    return found


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project in a folder whose parents are called pipeline, too: the nearest one counts."""
    root = tmp_path / "pipeline" / "my project"
    (root / "pipeline").mkdir(parents=True)
    shutil.copy(ROOT / "pipeline" / "file_paths.py", root / "pipeline")
    return root


def test_without_a_run_the_folders_are_those_of_the_project_wherever_one_stands(project: Path, tmp_path: Path) -> None:
    assert folders(project / "pipeline", cwd=tmp_path) == {
        "pipeline_dir": f"{project}/pipeline",
        "data_blobs_dir": f"{project}/data_blobs",
        "raw_dir": f"{project}/data_blobs/raw",
        "working_dir": f"{project}/data_blobs/working",
        "outputs_dir": f"{project}/outputs",
    }


def test_file_paths_may_lie_deeper_in_the_pipeline(project: Path, tmp_path: Path) -> None:
    deeper = project / "pipeline" / "image" / "lib"
    deeper.mkdir(parents=True)
    shutil.move(project / "pipeline" / "file_paths.py", deeper)
    assert folders(deeper, cwd=tmp_path)["outputs_dir"] == f"{project}/outputs"


def test_the_variables_of_a_run_win_one_by_one(project: Path, tmp_path: Path) -> None:
    found = folders(
        project / "pipeline", cwd=tmp_path, AMLCTL_DATA_BLOBS_DIR="/mnt/data", AMLCTL_OUTPUTS_DIR="/mnt/outputs"
    )
    assert found == {
        "pipeline_dir": f"{project}/pipeline",
        "data_blobs_dir": "/mnt/data",
        "raw_dir": "/mnt/data/raw",
        "working_dir": "/mnt/data/working",
        "outputs_dir": "/mnt/outputs",
    }
    assert folders(project / "pipeline", cwd=tmp_path, AMLCTL_PIPELINE_DIR="/code")["pipeline_dir"] == "/code"


def test_an_empty_variable_is_none(project: Path, tmp_path: Path) -> None:
    assert folders(project / "pipeline", cwd=tmp_path, AMLCTL_OUTPUTS_DIR="")["outputs_dir"] == f"{project}/outputs"


def test_init_writes_the_file_paths_of_the_example() -> None:
    template = ROOT / "amlctl" / "operations" / "templates" / "file_paths.py"
    assert template.read_text(encoding="utf-8") == (ROOT / "pipeline" / "file_paths.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("script", "needs"),
    [
        ("make_raw.py", {"produces": [RAW]}),
        ("preprocess.py", {"datasets": [RAW], "produces": [PATCHES]}),
        ("model_train.py", {"datasets": [PATCHES]}),
    ],
)
def test_a_script_states_what_it_reads_and_writes(script: str, needs: dict[str, list[str]]) -> None:
    assert read_script_block((EXAMPLE / script).read_text(encoding="utf-8"), script).values == needs


def test_every_pip_dependency_is_pinned_to_one_version() -> None:
    text = (ROOT / "pptdaml.yaml").read_text(encoding="utf-8")
    read_environment(ROOT / "pptdaml.yaml")
    pinned = re.findall(r"^      - ([\w-]+)==[\d.]+(?: #.*)?$", text, re.MULTILINE)
    assert pinned == re.findall(r"^      - ([\w-]+)", text, re.MULTILINE)
    assert {"jax", "optax", "numpy", "pillow", "scikit-image", "scikit-learn"} <= set(pinned)


def test_the_compute_targets_and_the_settings_are_good() -> None:
    project = Project(ROOT)
    targets = {target.name: target for target in read_compute_files(project).targets}
    assert targets["local"] == LocalTarget("local", slots=1)
    assert isinstance(targets["gpu"], ClusterTarget)
    settings = load_settings(project, {}, user_file=None)
    assert (settings.default_workspace, settings.experiment) == ("local", "ScreencopyDetection")
    assert settings.workspaces["local"].compute == "local"


def test_the_distributed_example_is_a_job_with_an_environment_of_its_own() -> None:
    folder = ROOT / "examples" / "distributed"
    job = yaml.safe_load((folder / "job.yml").read_text(encoding="utf-8"))
    assert job["distribution"] == {"type": "pytorch", "process_count_per_instance": 2}
    assert os.path.normpath(folder / job["inputs"]["patches"]["path"]) == str(ROOT / "data_blobs" / PATCHES)
    packages = read_environment(folder / job["environment"]["conda_file"]).pip
    assert any(package.startswith("torch==") for package in packages)
    assert not any(package.startswith("torch") for package in read_environment(ROOT / "pptdaml.yaml").pip)
