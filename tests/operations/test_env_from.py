"""`--env-from`: a run in an environment that amlctl has not made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from amlctl.core.environment import EnvironmentSpec, environment_without_file
from amlctl.errors import SettingsError, UsageError
from amlctl.operations.environment import chosen_environment
from amlctl.workspaces.azureml.assets import conda_document, installed_in, sends_module
from tests.support.bench import Bench
from tests.support.wheels import copy_installed, make_wheel

SCRIPT = "import os, sys, leaf; print(sys.prefix, leaf.VALUE, os.environ.get('VIRTUAL_ENV'))"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's environment, with `leaf` and what the runtime requires."""
    folder = tmp_path_factory.mktemp("own")
    wheels = folder / "wheels"
    files = [copy_installed(wheels, "xxhash"), make_wheel(wheels, "leaf", text="VALUE = 42")]
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv/bin/python"
    command: list[Any] = [python, "-m", "pip", "install", "--no-index", "--no-deps", *files]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "venv"


def test_a_script_runs_in_an_environment_by_its_path(bench: Bench, own: Path) -> None:
    spec = chosen_environment(str(own), Path("/"))
    assert spec is not None
    script = bench.script(SCRIPT)
    record = bench.submit(script, environment=spec.id).record
    assert record.status == "Completed"
    assert bench.workspace.read_log(record.run, 0).data.decode().split() == [str(own), "42", str(own)]
    assert environment_without_file(record.spec.environment) == spec
    assert bench.submit(from_run=record.run).record.status == "Completed"


def test_the_active_one_is_that_of_the_shell(own: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="no environment is active"):
        chosen_environment("active", tmp_path)
    monkeypatch.setenv("VIRTUAL_ENV", str(own))
    expected = EnvironmentSpec(is_current=True, interpreter=str(own / "bin/python"))
    assert chosen_environment("active", tmp_path) == expected
    assert chosen_environment(os.path.relpath(own / "bin/python", tmp_path), tmp_path) == expected
    assert chosen_environment("current", tmp_path) == EnvironmentSpec(is_current=True)
    with pytest.raises(UsageError, match="is not a Python"):
        chosen_environment("nowhere", tmp_path)


def test_one_without_what_the_runtime_requires_is_refused(bench: Bench, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    with pytest.raises(SettingsError, match=r"cannot run scripts of amlctl: .*xxhash"):
        bench.submit(bench.script(SCRIPT), environment=f"python:{tmp_path}/bare/bin/python")


def test_azure_ml_gets_the_packages_of_an_index(own: Path) -> None:
    document = conda_document(EnvironmentSpec(is_current=True, interpreter=str(own / "bin/python")))
    assert document["dependencies"][0] == f"python={sys.version_info[0]}.{sys.version_info[1]}"
    pip = document["dependencies"][-1]["pip"]
    assert any(line.startswith("pip==") for line in pip)
    assert not any(line.startswith("leaf") for line in pip)  # of a file
    assert not any("+" in line for line in pip)  # a build that PyPI does not have


def test_azure_ml_has_what_the_packages_of_an_index_bring(own: Path) -> None:
    spec = EnvironmentSpec(is_current=True, interpreter=str(own / "bin/python"))
    packages = installed_in(spec.interpreter)[1]
    found = {module: sends_module(packages, spec, module) for module in ("pip", "leaf", "surely_not_there")}
    assert found == {"pip": True, "leaf": False, "surely_not_there": None}
    assert sends_module(packages, EnvironmentSpec(is_current=True), "surely_not_there") is False
