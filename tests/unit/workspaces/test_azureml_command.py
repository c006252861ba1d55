"""The command line of a job on Azure ML, run by a real shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from amlctl.core.job import RUNTIME_ARCHIVE
from amlctl.core.run import RunRecord
from amlctl.workspaces.azureml.job import JobParts, job_document
from tests.support.runs import run_record

_PARTS = JobParts("c", "e", "azureml://store/", "azureml://saves/")


def _few_programs(tmp_path: Path) -> Path:
    """A PATH without Python."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for tool in ("mkdir", "ln", "test", "mktemp"):
        if found := shutil.which(tool):
            (programs / tool).symlink_to(found)
    return programs


def _run_job(record: RunRecord, programs: Path) -> subprocess.CompletedProcess[str]:
    """As on a node that has these programs."""
    command = str(job_document(record, _PARTS, {})["command"])
    for place in ("inputs.store", "outputs.saves"):
        command = command.replace(f"${{{{{place}}}}}", str(programs.parent))
    return subprocess.run(
        ["/bin/bash", "-c", command],
        cwd=programs.parent,
        env={"PATH": str(programs), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", ["python", "python3"])
def test_an_image_needs_one_of_the_names_of_python(tmp_path: Path, name: str) -> None:
    programs = _few_programs(tmp_path)
    (programs / name).write_text(
        f'#!/bin/bash\ncase "$*" in *amlctl.runtime*) echo "$@";; *) {sys.executable} "$@";; esac'
    )
    (programs / name).chmod(0o755)
    record = run_record("r", "job.yml", environment="azureml:theirs:7", command="echo ran && true")
    done = _run_job(record, programs)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("-m amlctl.runtime --store ")
    assert done.stdout.endswith(" -- echo ran && true\n")


@pytest.mark.parametrize("is_folder", [False, True])
def test_the_runtime_is_found_beside_the_code(tmp_path: Path, is_folder: bool) -> None:
    """In its archive, or, with the code of a run from before there was one, in a folder."""
    package = tmp_path / "amlctl/runtime"
    package.mkdir(parents=True)
    (tmp_path / "amlctl/__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("import os; print('ran', __file__, os.environ['PYTHONPATH'])")
    if not is_folder:
        with ZipFile(tmp_path / RUNTIME_ARCHIVE, "w") as archive:
            for file in sorted((tmp_path / "amlctl").rglob("*.py")):
                archive.write(file, file.relative_to(tmp_path))
        shutil.rmtree(tmp_path / "amlctl")
    command = str(job_document(run_record("r", "train.py"), _PARTS, {})["command"])
    for place in ("inputs.store", "outputs.saves"):
        command = command.replace(f"${{{{{place}}}}}", str(tmp_path))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)
    path = f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/bash", "-c", command], cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True, check=False
    )
    archive_path = tmp_path / RUNTIME_ARCHIVE
    assert done.stdout == f"ran {tmp_path if is_folder else archive_path}/amlctl/runtime/__main__.py {archive_path}\n"


def test_an_image_without_python_is_reported(tmp_path: Path) -> None:
    record = run_record("r", "job.yml", environment="image:x", command="ls")
    command = str(job_document(record, _PARTS, {})["command"]).replace(" /usr/", " /nowhere/")
    done = subprocess.run(
        ["/bin/bash", "-c", command], env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "amlctl: the environment image:x has no Python 3.9 or newer\n")


@pytest.mark.parametrize("argument", ["${{inputs.nowhere}}", "it's", "a b", "$HOME `date` $(date)", "x" * 5000])
def test_what_is_shown_of_the_arguments_is_only_shown(argument: str) -> None:
    record = run_record("r", "train.py", arguments=[argument])
    shown = str(job_document(record, _PARTS, {})["command"]).partition(" -- ")[2]
    assert "${{" not in shown
    assert len(shown) < 2500
    words = subprocess.run(
        ["/bin/bash", "-c", f'for word in {shown}; do echo "$word"; done'], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    if len(argument) < 100:
        assert words == ["python", "train.py", argument.replace("${{", "{{")]


def test_texts_of_a_job_are_no_longer_than_azure_ml_takes_and_show_no_secret() -> None:
    arguments = ["--url", "https://me:hunter2@example.com/x", *["--file=" + "x" * 90] * 100]
    record = run_record("r", "train.py", name="n" * 300, config=f"{'c' * 1200}.json", arguments=arguments)
    job = job_document(record, _PARTS, {})
    assert (len(job["display_name"]), len(job["description"])) == (256, 5000)
    assert max(map(len, job["properties"].values())) == 1000
    assert "hunter2" not in job["description"]


def test_a_python_that_is_too_old_runs_the_command_alone(tmp_path: Path) -> None:
    """The runtime takes another one of the image, and the job's own command finds its `python` as before."""
    programs = _few_programs(tmp_path)
    (programs / "python").write_text("#!/bin/bash\nexit 1\n")
    (programs / "python3").write_text(
        f'#!/bin/bash\ncase "$*" in *amlctl.runtime*) echo "new $AMLCTL_KEPT_PATH";; *) {sys.executable} "$@";; esac'
    )
    for name in ("python", "python3"):
        (programs / name).chmod(0o755)
    record = run_record("r", "job.yml", environment="0" * 32, command="python old.py")
    done = _run_job(record, programs)
    assert (done.returncode, done.stdout) == (0, f"new {programs}\n"), done.stderr
