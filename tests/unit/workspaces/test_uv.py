"""What uv is given, and what its errors mean."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from amlctl.core.environment import EnvironmentSpec
from amlctl.core.events import Event, Note, ToolSaid, null_sink
from amlctl.errors import ServiceUnavailable
from amlctl.workspaces.local.environment_making import prepare_environment
from amlctl.workspaces.local.environments import Environments
from amlctl.workspaces.local.installers import Uv, unsupported
from amlctl.workspaces.local.pip_settings import pip_settings
from amlctl.workspaces.local.tools import ToolRunner
from tests.support.wheels import copy_installed, make_wheel

NOWHERE = {"HOME": os.environ["HOME"], "XDG_CONFIG_DIRS": "/nonexistent"}
"""Where no settings of pip are; uv has its cache there."""
UV = Uv("uv", "python", {}, (), ToolRunner())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"PIP_INDEX_URL": "https://a/simple"}, {"UV_DEFAULT_INDEX": "https://a/simple"}),
        ({"PIP_EXTRA_INDEX_URL": "https://a/s\nhttps://b/s"}, {"UV_INDEX": "https://a/s https://b/s"}),
        ({"PIP_FIND_LINKS": "/a /b"}, {"UV_FIND_LINKS": "/a,/b"}),
        ({"PIP_CERT": "/ca.pem", "PIP_RETRIES": "2"}, {"SSL_CERT_FILE": "/ca.pem", "UV_HTTP_RETRIES": "2"}),
        ({"PIP_KEYRING_PROVIDER": "import"}, {"UV_KEYRING_PROVIDER": "subprocess"}),
        ({"UV_INDEX_URL": "https://u/s", "PIP_INDEX_URL": "https://a/s"}, {"UV_INDEX_URL": "https://u/s"}),
        ({"UV_INDEX_STRATEGY": "first-index"}, {"UV_INDEX_STRATEGY": "first-index"}),
        ({"UV_INDEX_OWN_PASSWORD": "x"}, {"UV_INDEX_OWN_PASSWORD": "x"}),
    ],
)
def test_settings_of_pip_apply_to_uv(given: dict[str, str], expected: dict[str, str]) -> None:
    variables = pip_settings({**NOWHERE, **given}).for_uv
    assert expected.items() <= variables.items()
    assert ("UV_DEFAULT_INDEX" in variables) == ("UV_DEFAULT_INDEX" in expected)


@pytest.mark.parametrize("name", ["UV_SYSTEM_PYTHON", "UV_PYTHON", "UV_OVERRIDE", "UV_PROJECT", "UV_NO_DEPS"])
def test_what_would_bend_an_environment_is_not_passed_on(name: str) -> None:
    assert name not in pip_settings({**NOWHERE, name: "1"}).for_uv


def test_settings_that_uv_takes_as_options() -> None:
    settings = pip_settings({**NOWHERE, "PIP_NO_INDEX": "1", "PIP_ONLY_BINARY": "a,b"})
    assert settings.uv_options == ["--no-index", "--only-binary", "a", "--only-binary", "b"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("numpy==2.1", ""),
        ("x @ git+https://host/x", ""),
        ("--prefer-binary", "--prefer-binary"),
        ("x @ hg+https://host/x", "hg+…"),
        ("x==1 --config-settings=a=b", "--config-settings"),
    ],
)
def test_what_is_left_to_pip(line: str, reason: str) -> None:
    assert unsupported([line]) == reason


NEW = """\
Using Python 3.11.7 environment at: v1
error: No solution found when resolving dependencies
  cause: Because all versions of fussy depend on leaf>=2 and you require leaf==1.0, we can conclude that it is void.
         And because you require fussy, we can conclude that your requirements are unsatisfiable.
"""
OLD = """\
  × No solution found when resolving dependencies:
  ╰─▶ Because all versions of fussy depend on leaf>=2 and you require leaf==1.0, we can conclude that it is void.
      And because you require fussy, we can conclude that your requirements are unsatisfiable.
"""


@pytest.mark.parametrize("text", [NEW, OLD], ids=["new", "old"])
def test_the_reason_of_a_conflict(text: str) -> None:
    reason, more = UV.explain(text.splitlines())
    assert reason == "all versions of fussy depend on leaf>=2 and you require leaf==1.0"
    assert more == ["And because you require fussy"]


def test_the_reason_of_another_failure() -> None:
    reason, more = UV.explain(["error: Failed to build `x==1`", "  cause: The build backend returned an error", "  a"])
    assert reason == "Failed to build `x==1`: The build backend returned an error"
    assert more == ["a"]


def test_the_log_of_an_environment_is_short_and_it_has_pip(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    copy_installed(wheels, "xxhash")
    make_wheel(wheels, "leaf")
    here = Environments(
        tmp_path / "environments",
        {**NOWHERE, "PATH": "/usr/bin:/bin", "PIP_NO_INDEX": "1", "UV_FIND_LINKS": str(wheels)},
    )
    events: list[Event] = []
    made = prepare_environment(here, EnvironmentSpec(pip=("leaf", "--pre")), events.append)
    assert (made.tool, made.is_ready) == ("uv", True)
    logged = [str(event.message) for event in events if isinstance(event, Note)]
    assert [line.split()[0] for line in logged] == ["making", "environment"]
    assert any(event.line.startswith("Installed") for event in events if isinstance(event, ToolSaid))
    assert list(Path(made.location).glob("lib/python*/site-packages/pip"))


def test_conda_installs_python_and_uv_the_rest(tmp_path: Path) -> None:
    wheels, tools = tmp_path / "wheels", tmp_path / "tools"
    copy_installed(wheels, "xxhash")
    tools.mkdir()
    conda = tools / "micromamba"
    conda.write_text(
        '#!/bin/sh\nwhile [ "$1" != --prefix ]; do shift; done\n'
        'python3 -m venv --without-pip "$2"; mkdir "$2/conda-meta"\n'
    )
    conda.chmod(0o755)
    variables = {**NOWHERE, "PATH": f"{tools}:/usr/bin:/bin", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    here = Environments(tmp_path / "environments", variables)
    made = prepare_environment(here, EnvironmentSpec(conda=("ffmpeg",)), null_sink)
    assert (made.tool, made.is_ready) == ("micromamba", True)
    assert prepare_environment(here, EnvironmentSpec(conda=("pip",)), null_sink).tool == "uv"


def test_an_index_with_a_password_leaves_none_behind(tmp_path: Path) -> None:
    variables = {**NOWHERE, "PATH": "/usr/bin:/bin", "PIP_RETRIES": "0"}
    here = Environments(tmp_path / "environments", variables)
    spec = EnvironmentSpec(pip=("--index-url http://me:hunter2@127.0.0.1:9/simple", "leaf"))
    with pytest.raises(ServiceUnavailable, match="cannot reach a package index"):
        prepare_environment(here, spec, null_sink)
    assert not [path for path in here.folder.rglob("*") if path.is_file() and b"hunter2" in path.read_bytes()]
