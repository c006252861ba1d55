"""Environments made by the real venv and pip from wheels on disk: what foreign settings and dead makers do to them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from amlctl.config.environment_file import parse_environment, read_environment, recorded_text
from amlctl.core.environment import EnvironmentSpec
from amlctl.core.events import Event, Note, ToolSaid, null_sink
from amlctl.errors import ServiceUnavailable, SettingsError
from amlctl.workspaces.local.environment_making import prepare_environment
from amlctl.workspaces.local.environments import READY_FILE, Environments, interpreter
from amlctl.workspaces.local.packages import Packages
from amlctl.workspaces.local.pip_settings import pip_settings
from tests.support.runs import wait_until
from tests.support.wheels import copy_installed, make_wheel


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    copy_installed(folder, "xxhash")
    make_wheel(folder, "leaf")
    make_wheel(folder, "twig", requires=("leaf",))
    make_wheel(folder, "fussy", requires=("leaf>=2",))
    return folder


def settings(wheels: Path, **more: str) -> dict[str, str]:
    home = os.environ["HOME"]  # of the tests: uv has its cache there
    return {"PATH": "/usr/bin:/bin", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "HOME": home, **more}


def here(tmp_path: Path, wheels: Path, **more: str) -> Environments:
    return Environments(tmp_path / "environments", settings(wheels, **more))


def has(environments: Environments, spec: EnvironmentSpec, module: str) -> bool:
    python = interpreter(environments.find(spec.id))
    return subprocess.run([python, "-I", "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> tuple[Environments, EnvironmentSpec]:
    """One that every setting of the shell which could bend it was set for."""
    folder = tmp_path_factory.mktemp("bent")
    elsewhere = folder / "elsewhere"
    (folder / "path").mkdir()
    (folder / "path" / "xxhash.py").write_text("raise SystemExit('of PYTHONPATH')")
    variables = {
        "PIP_USER": "1",
        "PIP_TARGET": str(elsewhere),
        "PIP_PREFIX": str(elsewhere),
        "PIP_ROOT": str(elsewhere),
        "PIP_DRY_RUN": "1",
        "PIP_REQUIRE_VIRTUALENV": "1",
        "PIP_NO_DEPS": "1",
        "PIP_PYTHON": "/nonexistent/python",
        "PIP_REQUIREMENT": str(folder / "nothing.txt"),
        "PIP_BREAK_SYSTEM_PACKAGES": "1",
        "PYTHONPATH": str(folder / "path"),
        "PYTHONUSERBASE": str(elsewhere),
        "PYTHONSTARTUP": str(folder / "path" / "xxhash.py"),
        "PYTHONWARNINGS": "error",
        "PYTHONINSPECT": "1",
        "VIRTUAL_ENV": str(elsewhere),
        "CONDA_PREFIX": str(elsewhere),
    }
    environments = Environments(folder / "environments", settings(wheels, **variables))
    spec = EnvironmentSpec(pip=("twig",))
    events: list[Event] = []
    assert prepare_environment(environments, spec, events.append).is_ready
    assert not elsewhere.exists()
    reported = [
        event.message for event in events if isinstance(event, Note) and event.message.startswith("pip's settings")
    ]
    assert len(reported) == 1
    assert "target" in reported[0]
    return environments, spec


def test_settings_of_the_shell_do_not_bend_an_environment(made: tuple[Environments, EnvironmentSpec]) -> None:
    environments, spec = made
    assert has(environments, spec, "twig, leaf, xxhash")
    ready = json.loads((environments.folder_of(spec.id) / READY_FILE).read_text())
    assert ready["packages"].keys() == {"twig", "leaf", "xxhash"}


def test_a_script_finds_nothing_of_the_callers_own_environment(made: tuple[Environments, EnvironmentSpec]) -> None:
    environments, spec = made
    variables = environments.inherited_variables(environments.find(spec.id))
    assert variables["VIRTUAL_ENV"] == environments.find(spec.id).location
    assert not {"PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE", "CONDA_PREFIX"} & variables.keys()
    assert variables["PYTHONWARNINGS"] == "error"


def test_removed_packages_are_noticed_and_installed_again(made: tuple[Environments, EnvironmentSpec]) -> None:
    environments, spec = made
    python = interpreter(environments.find(spec.id))
    subprocess.run([python, "-m", "pip", "uninstall", "--yes", "leaf"], capture_output=True, check=True)
    assert not environments.find(spec.id).is_ready
    assert prepare_environment(environments, spec, null_sink).is_ready
    assert has(environments, spec, "leaf")
    assert interpreter(environments.find(spec.id)) != python  # a run may still use the other one


def test_packages_added_since_do_no_harm(made: tuple[Environments, EnvironmentSpec], wheels: Path) -> None:
    environments, spec = made
    prepare_environment(environments, spec, null_sink)
    python = interpreter(environments.find(spec.id))
    make_wheel(wheels, "added")
    command: list[Any] = [python, "-m", "pip", "install", "--no-index", "--find-links", str(wheels), "added"]
    subprocess.run(command, capture_output=True, check=True)
    assert not environments.find(spec.id).is_ready
    assert prepare_environment(environments, spec, null_sink).is_ready
    assert interpreter(environments.find(spec.id)) == python


@pytest.mark.parametrize("kind", ["PIP_CONFIG_FILE", "user"])
def test_settings_of_pip_conf_do_not_bend_it_but_say_where_packages_are(
    tmp_path: Path, wheels: Path, kind: str
) -> None:
    text = f"[global]\nfind-links = {wheels}\nno-index = true\n[install]\nuser = true\ntarget = {tmp_path}/away\n"
    file = tmp_path / "home/.config/pip/pip.conf"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    variables = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "home")}
    if kind == "PIP_CONFIG_FILE":
        variables = {**variables, "PIP_CONFIG_FILE": str(file), "HOME": os.environ["HOME"]}
    found = pip_settings(variables)
    assert found.for_pip["PIP_FIND_LINKS"] == str(wheels)
    assert found.for_pip["PIP_NO_INDEX"] == "true"
    assert "PIP_TARGET" not in found.for_pip
    assert {"user", "target"} <= set(found.unused)
    environments = Environments(tmp_path / "environments", variables)
    spec = EnvironmentSpec(pip=("leaf",))
    assert prepare_environment(environments, spec, null_sink).is_ready
    assert has(environments, spec, "leaf")


def test_a_pip_conf_that_cannot_be_read_is_reported(tmp_path: Path, wheels: Path) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("nonsense\n")
    spec = parse_environment("name: x\ndependencies:\n- python>=3.9\n- pip:\n  - leaf\n", "pptdaml.yaml")
    with pytest.raises(SettingsError, match=r"^pip's settings cannot be read"):
        Packages(here(tmp_path, wheels, PIP_CONFIG_FILE=str(file)), spec).check(null_sink)


MAKER = """
import sys
from pathlib import Path
from amlctl.core.environment import EnvironmentSpec
from amlctl.core.events import null_sink
from amlctl.workspaces.local.environment_making import prepare_environment
from amlctl.workspaces.local.environments import Environments
import json
environments = Environments(Path(sys.argv[1]), json.loads(sys.argv[2]))
prepare_environment(environments, EnvironmentSpec(python="==3.11.99"), null_sink)
"""
HANGING_PYTHON = """#!/bin/sh
if [ "$1" = -I ]; then echo '[[3, 11, 99], true, true, ""]'; exit 0; fi
echo $$ > {pid}.new; mv {pid}.new {pid}
while [ ! -e {go} ]; do sleep 0.1; done
"""


def start_maker(tmp_path: Path) -> tuple[subprocess.Popen[bytes], int, Environments]:
    """A maker in a process of its own whose tool hangs, and the number of that tool."""
    pid = tmp_path / "pid"
    python = tmp_path / "python3.11"
    python.write_text(HANGING_PYTHON.format(pid=pid, go=tmp_path / "go"))
    python.chmod(0o755)
    variables = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PIP_PREFER_BINARY": "1"}  # which uv cannot do
    environments = Environments(tmp_path / "environments", variables)
    maker = subprocess.Popen(
        [sys.executable, "-c", MAKER, str(environments.folder), json.dumps(dict(environments.variables))]
    )
    wait_until(pid.exists, what="the tool's start")
    wait_until(lambda: '"tool": {' in marks_of(environments), what="the tool in the mark")
    return maker, int(pid.read_text()), environments


def marks_of(environments: Environments) -> str:
    return "".join(mark.read_text() for mark in environments.folder.glob("*/*.making"))


def is_running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_maker_blocks_no_other_one_and_its_tool_is_ended(tmp_path: Path, wheels: Path) -> None:
    maker, tool, _ = start_maker(tmp_path)
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    assert is_running(tool)
    spec = EnvironmentSpec(python="==3.11.99")
    (tmp_path / "python3.11").write_text("#!/bin/sh\nexit 1\n")  # this attempt fails, after it has cleared up
    with pytest.raises(SettingsError):
        prepare_environment(Environments(tmp_path / "environments", {"PATH": str(tmp_path)}), spec, null_sink)
    wait_until(lambda: not is_running(tool), what="the end of the orphan")
    assert sorted(path.name for path in (tmp_path / "environments" / spec.id).iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_stopped_maker_whose_mark_has_expired_is_not_waited_for(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amlctl.workspaces.local.environment_making._SILENT_S", 0.5)
    maker, tool, environments = start_maker(tmp_path)
    try:
        maker.send_signal(signal.SIGSTOP)
        (mark,) = environments.folder.glob("*/*.making")
        os.utime(mark, (mark.stat().st_mtime - 3600,) * 2)
        spec = EnvironmentSpec(python="==3.11.99")
        (tmp_path / "python3.11").write_text("#!/bin/sh\nexit 1\n")
        with pytest.raises(SettingsError):
            prepare_environment(environments, spec, null_sink)
        assert is_running(tool)  # a suspended builder continues with it when it wakes up
    finally:
        maker.kill()
        maker.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(tool, signal.SIGKILL)


@pytest.mark.parametrize(
    ("pip", "line", "reported"),
    [
        (("leaf", "nosuchpackage==9"), "pptdaml.yaml:6", "nosuchpackage==9"),
        (("leaf==7",), "pptdaml.yaml:5", "leaf==7"),
        (("leaf==1.0", "fussy"), "pptdaml.yaml:5", "fussy depend on leaf>=2"),
    ],
)
def test_unavailable_packages_are_reported_early_with_their_line(
    tmp_path: Path, wheels: Path, pip: tuple[str, ...], line: str, reported: str
) -> None:
    text = "name: x\ndependencies:\n- python>=3.9\n- pip:\n" + "".join(f"  - {one}\n" for one in pip)
    spec = parse_environment(text, "pptdaml.yaml")
    environments = here(tmp_path, wheels)
    with pytest.raises(SettingsError) as caught:
        Packages(environments, spec).check(null_sink)
    assert caught.value.message.startswith(f"{line}: ")
    assert reported in caught.value.message
    assert not environments.folder.exists()


@pytest.mark.parametrize("where", ["PIP_CONSTRAINT", "constraint"])
def test_a_constraint_of_the_caller_that_stands_against_it_is_named(tmp_path: Path, wheels: Path, where: str) -> None:
    limits = tmp_path / "limits.txt"
    limits.write_text("leaf>=2\n")
    more = {"PIP_CONSTRAINT": str(limits)}
    if where == "constraint":
        (tmp_path / "pip.conf").write_text(f"[global]\nconstraint = {limits}\n")
        more = {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}
    spec = parse_environment("name: x\ndependencies:\n- python>=3.9\n- pip:\n  - leaf\n", "pptdaml.yaml")
    with pytest.raises(SettingsError) as caught:
        Packages(here(tmp_path, wheels, **more), spec).check(null_sink)
    assert f"{where} ({limits}) limits which versions may be installed" in caught.value.details
    wanted = "env -u PIP_CONSTRAINT amlctl env prepare" if where == "PIP_CONSTRAINT" else "pip config debug"
    assert wanted in caught.value.hint


@pytest.mark.parametrize("is_gone", [False, True], ids=["kept", "gone"])
def test_the_resolved_versions_are_installed_and_reported_once(tmp_path: Path, wheels: Path, is_gone: bool) -> None:
    """A version that the index has lost in the meantime is replaced by the one that it has now."""
    index = tmp_path / "index"
    shutil.copytree(wheels, index)
    environments, spec = here(tmp_path, index), EnvironmentSpec(pip=("twig",))
    Packages(environments, spec).check(null_sink)
    make_wheel(index, "leaf", "2.0")
    if is_gone:
        (index / "leaf-1.0-py3-none-any.whl").unlink()
    events: list[Event] = []
    assert prepare_environment(environments, spec, events.append).is_ready
    ready = json.loads((environments.folder_of(spec.id) / "ready.json").read_text())
    assert ready["packages"]["leaf"] == ("2.0" if is_gone else "1.0")
    reported = [event.line for event in events if isinstance(event, ToolSaid)]
    assert not [line for line in reported if line.startswith(("Collecting", "Looking in", "Requirement already"))]
    assert len([line for line in reported if line.startswith("Installed ")]) == 1
    assert not list(environments.folder.glob("*.resolved"))


def test_a_silent_index_is_not_a_fault_of_the_file(tmp_path: Path, wheels: Path) -> None:
    variables = settings(wheels, PIP_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0")
    del variables["PIP_NO_INDEX"]
    with pytest.raises(ServiceUnavailable, match="cannot reach a package index"):
        Packages(Environments(tmp_path, variables), EnvironmentSpec(pip=("nosuchpackage",))).check(null_sink)


@pytest.mark.parametrize("python", ["3.6", "2.7", "=3.8", "<3.9", ">=3.5,<3.8", "3.7|3.8"])
def test_a_python_that_is_too_old_is_reported_with_its_line(tmp_path: Path, wheels: Path, python: str) -> None:
    text = f"dependencies:\n- python{python if python[0] in '<=>' else '=' + python}\n"
    with pytest.raises(SettingsError, match=r"pptdaml\.yaml:2: Python .* too old.* 3\.9"):
        Packages(here(tmp_path, wheels), parse_environment(text, "pptdaml.yaml")).check(null_sink)


@pytest.mark.parametrize("python", ["3.39", "3.99", "5.1"])
def test_a_python_that_this_machine_does_not_have_is_reported_with_its_line(
    tmp_path: Path, wheels: Path, python: str
) -> None:
    spec = parse_environment(f"dependencies:\n- python={python}\n", "pptdaml.yaml")
    with pytest.raises(SettingsError, match=rf"pptdaml\.yaml:2: .*{python}; this machine has"):
        Packages(here(tmp_path, wheels), spec).check(null_sink)


def test_files_that_the_list_names_are_installed_with_it(tmp_path: Path, wheels: Path) -> None:
    project = tmp_path / "a project"
    own = make_wheel(project / "my wheels", "own", text="VALUE = 1")
    make_wheel(project / "more", "extra", "2.0")
    (project / "requirements").mkdir()
    (project / "requirements/all.txt").write_text(
        "# everything\nleaf \\\n  ==1.0  # pinned\n-r more.txt\n-c ../bounds.txt\n"
    )
    (project / "requirements/more.txt").write_text("extra; python_version >= '3.9'\nabsent; python_version < '3'\n")
    (project / "bounds.txt").write_text("extra<2\n")
    make_wheel(project / "more", "extra", "1.5")
    (project / "pptdaml.yaml").write_text(
        "dependencies:\n- pip:\n  - -r requirements/all.txt\n  - --find-links more\n"
        "  - ./my wheels/own-1.0-py3-none-any.whl\n"
    )
    spec = read_environment(project / "pptdaml.yaml")
    environments = here(tmp_path, wheels)
    Packages(environments, spec).check(null_sink)
    assert prepare_environment(environments, spec, null_sink).is_ready
    packages = json.loads((environments.folder_of(spec.id) / READY_FILE).read_text())["packages"]
    assert packages == {"leaf": "1.0", "extra": "1.5", "own": "1.0", "xxhash": packages["xxhash"]}
    # The record alone leads to the same environment, wherever the project is.
    recorded = recorded_text((project / "pptdaml.yaml").read_text(), spec)
    assert parse_environment(recorded, "the environment of run x").id == spec.id
    make_wheel(own.parent, "own", text="VALUE = 2")
    assert read_environment(project / "pptdaml.yaml").id != spec.id


def test_hashes_are_checked_and_amlctls_own_package_needs_none(tmp_path: Path, wheels: Path) -> None:
    digest = hashlib.sha256((wheels / "leaf-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    environments = here(tmp_path, wheels)
    spec = EnvironmentSpec(pip=(f"leaf==1.0 --hash=sha256:{digest}",))
    Packages(environments, spec).check(null_sink)
    assert environments.has_module(spec, "leaf") is not False, "nothing is warned of"
    assert prepare_environment(environments, spec, null_sink).is_ready
    assert has(environments, spec, "leaf, xxhash")
    wrong = EnvironmentSpec(pip=(f"leaf==1.0 --hash=sha256:{'0' * 64}",))
    with pytest.raises(SettingsError, match=r"(?i)hash"):
        prepare_environment(environments, wrong, null_sink)
