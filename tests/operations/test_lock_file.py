"""A lock file beside `pptdaml.yaml` says which versions an environment has."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from amlctl.config.environment_file import parse_environment
from amlctl.core.events import null_sink
from amlctl.errors import SettingsError
from amlctl.localfs.tool_variables import find_uv
from amlctl.operations.environment import project_environment
from tests.support.bench import Bench
from tests.support.wheels import make_wheel

PYLOCK = """
    lock-version = "1.0"
    requires-python = ">= 3.10"
    [[packages]]
    name = "leaf"
    version = "1.0"
    [[packages]]
    name = "winter"
    version = "2.0"
    marker = "sys_platform == 'win32'"
    [[packages]]
    name = "own"
    archive = { url = "https://host/own-1.0-py3-none-any.whl" }
"""


def test_pylock_pins_what_the_file_lists_and_adds_the_rest(bench: Bench) -> None:
    bench.write("pylock.toml", PYLOCK)
    spec, text = project_environment(bench.project, sink=null_sink)
    pins = ("leaf==1.0", "winter==2.0 ; sys_platform == 'win32'", "own @ https://host/own-1.0-py3-none-any.whl")
    assert (spec.python, spec.pip) == (">=3.10", pins)
    assert parse_environment(str(text), "record").id == spec.id
    bench.write("pptdaml.yaml", "dependencies:\n- python=3.11\n- numpy\n- pip:\n  - leaf\n")
    both, _ = project_environment(bench.project, sink=null_sink)
    assert (both.python, both.conda, both.pip) == ("3.11", ("numpy",), ("leaf", *pins))
    assert both.id != spec.id


def test_uv_lock_is_read_by_uv(bench: Bench, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "leaf")
    make_wheel(wheels, "twig", requires=("leaf",))
    bench.write(
        "pyproject.toml", '[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.9"\ndependencies = ["twig"]\n'
    )
    command = [find_uv({}), "lock", "--quiet", "--no-index", "--find-links", str(wheels)]
    subprocess.run(command, cwd=bench.project.root, check=True)
    spec, _ = project_environment(bench.project, sink=null_sink)
    assert (spec.python, sorted(spec.pip)) == (">=3.9", ["leaf==1.0", "twig==1.0"])
    (bench.project.root / "uv.lock").write_text("version = 1\n[[package]]\nname = 3\n")
    with pytest.raises(SettingsError, match=r"uv\.lock cannot be read"):
        project_environment(bench.project, sink=null_sink)


@pytest.mark.parametrize(
    "package", ["name = 'own'\narchive = 'x'", "name = 'own'\nvcs = 3", "name = 'own'\nversion = {}"]
)
def test_what_is_not_a_package_is_refused(bench: Bench, package: str) -> None:
    bench.write("pylock.toml", f"[[packages]]\n{package}\n")
    with pytest.raises(SettingsError, match="own"):
        project_environment(bench.project, sink=null_sink)


def test_a_folder_in_it_is_refused(bench: Bench) -> None:
    bench.write("pylock.toml", '[[packages]]\nname = "own"\ndirectory = { path = "own" }\n')
    with pytest.raises(SettingsError, match="own is a folder of this machine"):
        project_environment(bench.project, sink=null_sink)
