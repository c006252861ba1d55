"""Environments of the local workspace: made once, found again, never half-made; with fake and real tools."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from amlctl.config.environment_file import python_specifiers
from amlctl.core.environment import EnvironmentSpec
from amlctl.core.events import Event, Note, ToolSaid, null_sink
from amlctl.core.package_names import pip_requirements
from amlctl.errors import Interrupted, ServiceUnavailable, SettingsError
from amlctl.workspaces.local.environment_making import prepare_environment
from amlctl.workspaces.local.environments import Environments, interpreter
from amlctl.workspaces.local.tools import find_python
from tests.support.runs import wait_until

FAKE_CONDA = """#!/bin/sh
echo "$0 $*" >> {calls}
while [ "$1" != --prefix ]; do shift; done
mkdir -p "$2/bin" "$2/conda-meta"
cp {python} "$2/bin/python"
echo made
"""
FAKE_PYTHON = """#!/bin/sh
# A Python whose venv is itself and whose pip says what it is told to.
if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; exit 0; fi
if [ "$1" = -I ]; then
  case "$3" in
    *metadata*) echo '{{"python": "3.11.99", "missing": [], "error": ""}}' ;;
    *) echo '[[3, 11, 99], true, true, ""]' ;;
  esac
  exit 0
fi
if [ "$3" = config ]; then exit 0; fi
echo "$*" >> {calls}
cat "$5" >> {calls}
{pip}
"""


@pytest.mark.skipif(sys.platform == "darwin", reason="APFS takes no name that is not UTF-8")
def test_a_folder_whose_name_is_not_utf8_is_reported_with_a_fix(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff") / "environments"
    with pytest.raises(SettingsError, match="not valid UTF-8") as caught:
        prepare_environment(Environments(folder, {"PATH": ""}), EnvironmentSpec(), null_sink)
    assert "AMLCTL_ENVIRONMENTS_DIR" in caught.value.hint


def write_tool(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    tool = folder / name
    tool.write_text(text)
    tool.chmod(0o755)
    return tool


def environments(tmp_path: Path, *folders: Path, **variables: str) -> Environments:
    path = ":".join([*map(str, folders), "/usr/bin", "/bin"])
    return Environments(tmp_path / "environments", {"PATH": path, "PIP_CONFIG_FILE": os.devnull, **variables})


def with_pip(tmp_path: Path, pip: str) -> tuple[Environments, EnvironmentSpec, Path]:
    """No conda, and a `python3.11` whose pip is the shell text `pip`; the wanted version keeps others out."""
    calls = tmp_path / "calls"
    calls.touch()
    write_tool(tmp_path / "tools", "python3.11", FAKE_PYTHON.format(calls=calls, pip=pip))
    spec = EnvironmentSpec(python="==3.11.99", conda=("pytorch=2.1", "numpy"), pip=("pillow>=10", "--pre"))
    return (
        environments(tmp_path, tmp_path / "tools", PIP_INDEX_URL="https://index.example/simple", PIP_PREFER_BINARY="1"),
        spec,
        calls,
    )


def test_current_interpreter_is_always_ready(tmp_path: Path) -> None:
    spec = EnvironmentSpec(is_current=True)
    here = environments(tmp_path)
    assert prepare_environment(here, spec, null_sink) == here.find(spec.id)
    assert here.find(spec.id).is_ready
    assert interpreter(here.find(spec.id)) == Path(sys.executable)
    assert not here.folder.exists()


@pytest.mark.parametrize(
    ("tool", "command"), [("micromamba", "create --yes"), ("mamba", "env create"), ("conda", "env create")]
)
def test_conda_environment_is_made_once(tmp_path: Path, tool: str, command: str) -> None:
    calls, pip_calls = tmp_path / "calls", tmp_path / "pip-calls"
    python = write_tool(tmp_path / "tools", "a-python", FAKE_PYTHON.format(calls=pip_calls, pip="exit 0"))
    write_tool(tmp_path / "tools", tool, FAKE_CONDA.format(calls=calls, python=python))
    here = environments(tmp_path, tmp_path / "tools", PIP_PREFER_BINARY="1")
    spec = EnvironmentSpec(python="3.11", conda=("ffmpeg",), pip=("pillow",))
    before = here.find(spec.id)
    assert (before.is_ready, before.location, here.tool_for(spec)) == (False, "", tool)
    made = prepare_environment(here, spec, null_sink)
    assert made.is_ready
    assert made.tool == tool
    assert prepare_environment(here, spec, null_sink) == made
    (line,) = calls.read_text().splitlines()
    assert f"{tool} {command} --prefix {made.location} --file" in line
    document = json.loads((here.folder_of(spec.id) / "environment.yaml").read_text())
    assert document["channels"] == ["conda-forge"]
    assert document["dependencies"] == ["python=3.11", "ffmpeg", "pip"]
    assert pip_calls.read_text().splitlines()[1:] == ["pillow", "xxhash>=3.4"]
    variables = here.inherited_variables(here.find(spec.id))
    assert variables["CONDA_PREFIX"] == made.location
    assert variables["PATH"].startswith(f"{made.location}/bin:")


def test_pip_gets_lines_as_written_and_its_own_settings(tmp_path: Path) -> None:
    here, spec, calls = with_pip(tmp_path, 'echo "index $PIP_INDEX_URL"; exit 0')
    events: list[Event] = []
    made = prepare_environment(here, spec, events.append)
    assert (made.is_ready, made.tool) == (True, "venv")
    command, *requirements = calls.read_text().splitlines()
    assert command.startswith("-m pip install --requirement")
    assert "index" not in command
    assert requirements == ["torch==2.1.*", "numpy", "pillow>=10", "--pre", "xxhash>=3.4"]
    assert "index https://index.example/simple" in [event.line for event in events if isinstance(event, ToolSaid)]


def test_failed_pip_says_why_and_leaves_nothing_that_counts(tmp_path: Path) -> None:
    here, spec, _ = with_pip(
        tmp_path, "echo Collecting torch; echo 'ERROR: No matching distribution for torch'; exit 1"
    )
    with pytest.raises(
        SettingsError, match=r"packages cannot be installed: No matching distribution for torch"
    ) as caught:
        prepare_environment(here, spec, null_sink)
    assert caught.value.details == ("Collecting torch", "ERROR: No matching distribution for torch")
    assert caught.value.hint
    assert not here.find(spec.id).is_ready


@pytest.mark.parametrize("sign", ["connection broken by NewConnectionError", "fatal: Could not resolve host: x.test"])
def test_a_missing_network_is_recognized(tmp_path: Path, sign: str) -> None:
    reported = f"WARNING: {sign}"
    here, spec, _ = with_pip(tmp_path, f"echo '{reported}'; exit 1")
    with pytest.raises(ServiceUnavailable, match="cannot reach a package index"):
        prepare_environment(here, spec, null_sink)


def test_environment_whose_interpreter_is_gone_is_made_again(tmp_path: Path) -> None:
    here, spec, calls = with_pip(tmp_path, "exit 0")
    prepare_environment(here, spec, null_sink)
    interpreter(here.find(spec.id)).unlink()
    assert not here.find(spec.id).is_ready
    assert prepare_environment(here, spec, null_sink).is_ready
    assert calls.read_text().count("pip install") == 2


def test_a_second_maker_waits_and_uses_the_same(tmp_path: Path) -> None:
    here, spec, calls = with_pip(tmp_path, f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done")
    waiting = threading.Event()

    def note(event: Event) -> None:
        if isinstance(event, Note) and "another amlctl" in event.message:
            waiting.set()

    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(prepare_environment, here, spec, note) for _ in range(2)]
        assert waiting.wait(30)
        (tmp_path / "go").touch()
        assert [job.result().is_ready for job in jobs] == [True, True]
    assert calls.read_text().count("pip install") == 1


def test_stopped_on_request(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    here, spec, _ = with_pip(tmp_path, f"echo $$ > {pid}; exec sleep 600")

    def check() -> None:
        if pid.exists() and pid.read_text():
            raise Interrupted("enough")

    with pytest.raises(Interrupted):
        prepare_environment(here, spec, null_sink, check=check)
    assert not here.find(spec.id).is_ready
    wait_until(
        lambda: subprocess.run(["kill", "-0", pid.read_text().strip()], capture_output=True, check=False).returncode
    )


def test_real_venv_with_the_runtimes_requirement(tmp_path: Path) -> None:
    notebook = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    here = Environments(
        tmp_path / "environments", {**os.environ, "PATH": "/usr/bin:/bin", "PYTHONPATH": "/nowhere", **notebook}
    )
    spec = EnvironmentSpec()
    try:
        made = prepare_environment(here, spec, null_sink)
    except ServiceUnavailable as error:
        pytest.skip(f"no package index here: {error.message}")
    code = "import sys, xxhash; print(sys.prefix)"
    variables = here.inherited_variables(here.find(spec.id))
    assert not {"PYTHONPATH", "MPLBACKEND"} & set(variables)
    result = subprocess.run(["python", "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert Path(result.stdout.strip()) == Path(made.location).resolve()


@pytest.mark.parametrize(
    ("conda", "pip"),
    [
        ("numpy", "numpy"),
        ("numpy=1.26", "numpy==1.26.*"),
        ("numpy=1.26.*", "numpy==1.26.*"),
        ("numpy==1.26.4", "numpy==1.26.4"),
        ("numpy=1.26.4=py311h64a7726_0", "numpy==1.26.4"),
        ("numpy>=1.20,<2", "numpy>=1.20,<2"),
        ("numpy >=1.20", "numpy>=1.20"),
        ("numpy 1.26.*", "numpy==1.26.*"),
        ("conda-forge::pytorch=2.1", "torch==2.1.*"),
        ("opencv", "opencv-python"),
        ("matplotlib-base", "matplotlib"),
        ("Pillow", "pillow"),
        ("pip", None),
    ],
)
def test_conda_packages_by_their_pypi_names(conda: str, pip: str | None) -> None:
    assert pip_requirements([conda]) == ([] if pip is None else [pip])


def test_packages_that_only_conda_has_are_all_named() -> None:
    with pytest.raises(SettingsError, match="cudatoolkit, ffmpeg") as caught:
        pip_requirements(["numpy", "cudatoolkit=11.8", "ffmpeg"])
    assert "micromamba" in caught.value.hint


@pytest.mark.parametrize("spec", ["numpy=1.20|1.21", "numpy[version='>=1']", "a::b::c d e ["])
def test_what_pip_cannot_express_is_refused(spec: str) -> None:
    with pytest.raises(SettingsError):
        pip_requirements([spec])


@pytest.mark.parametrize(
    ("wanted", "fits", "fits_not"),
    [
        ("", ["3.9.1", "3.13.0"], []),
        ("3.11", ["3.11.0", "3.11.9"], ["3.1.1", "3.12.0"]),
        ("=3.11", ["3.11.9"], ["3.10.9"]),
        ("==3.11", ["3.11.9"], ["3.12.0"]),
        ("3.11.*", ["3.11.9"], ["3.12.0"]),
        ("3.11.7", ["3.11.7"], ["3.11.8"]),
        (">=3.10,<3.12", ["3.10.0", "3.11.9"], ["3.12.0"]),
        (">=3.10 <3.12", ["3.10.0"], ["3.12.0"]),
    ],
)
def test_python_versions(wanted: str, fits: list[str], fits_not: list[str]) -> None:
    specifiers = python_specifiers(wanted)
    assert all(specifiers.contains(version) for version in fits)
    assert not any(specifiers.contains(version) for version in fits_not)


def test_this_python_is_taken_if_it_fits(tmp_path: Path) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert find_python(version, {"PATH": str(tmp_path)}).path == sys.executable


def test_python_on_the_path_is_found_and_a_broken_one_passed_over(tmp_path: Path) -> None:
    write_tool(tmp_path, "python3.13", "#!/bin/sh\nexit 127\n")
    other = write_tool(tmp_path, "python3.9", "#!/bin/sh\necho '[[3, 9, 18], true, true, \"\"]'\n")
    assert find_python("<3.10", {"PATH": str(tmp_path)}).path == str(other)


def test_python_of_pyenv_that_is_not_chosen_in_this_folder_is_found(tmp_path: Path) -> None:
    """`python3.13` on the PATH is pyenv's, and fails then."""
    write_tool(tmp_path, "python3.13", "#!/bin/sh\nexit 127\n")
    for version in ("3.9.9", "3.13.0", "3.13.2", "miniconda3"):
        (folder := tmp_path / f".pyenv/versions/{version}/bin").mkdir(parents=True)
        numbers = version.replace(".", ", ")
        write_tool(folder, "python", f"#!/bin/sh\necho '[[{numbers}], true, true, \"\"]'\n")
    for variables in ({"HOME": str(tmp_path)}, {"PYENV_ROOT": f"{tmp_path}/.pyenv"}):
        found = find_python("3.13", {"PATH": str(tmp_path), **variables})
        assert found.path == f"{tmp_path}/.pyenv/versions/3.13.2/bin/python"


def test_no_python_that_fits(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"requires Python 3\.7") as caught:
        find_python("3.7", {"PATH": str(tmp_path)})
    assert "python3.7" in caught.value.hint


def test_nonsense_version() -> None:
    with pytest.raises(SettingsError, match="not a valid version"):
        python_specifiers("three")
