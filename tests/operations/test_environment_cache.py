"""The environments of this machine: one folder for all projects, listed and removed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from amlctl.core.environment import EnvironmentSpec
from amlctl.core.events import null_sink
from amlctl.errors import Conflict, NotFound
from amlctl.operations.environment import list_environments, remove_environments
from amlctl.wiring import open_app
from amlctl.workspaces.local.environment_making import prepare_environment
from amlctl.workspaces.local.environments import Environments
from tests.support.bench import Bench
from tests.support.wheels import copy_installed

DAY_S = 86400.0


@pytest.fixture
def cache(bench: Bench, tmp_path: Path) -> tuple[Bench, Environments]:
    wheels = tmp_path / "wheels"
    copy_installed(wheels, "xxhash")
    pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    variables = {"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"], **pip}
    here = Environments(tmp_path / "environments", variables)
    return replace(bench, environments=here), here


def test_they_are_listed_with_what_they_were_made_for(cache: tuple[Bench, Environments]) -> None:
    bench, here = cache
    assert list_environments(bench).environments == []
    made = prepare_environment(here, EnvironmentSpec(pip=("--no-index", "xxhash")), null_sink)
    (one,) = list_environments(bench).environments
    assert (one.location, one.tool, one.is_whole, one.is_in_use) == (made.location, "uv", True, False)
    assert list(one.lists) == ["--no-index", "xxhash"]
    assert one.size_bytes > 100_000
    assert list_environments(bench).to_json()["environments"][0]["used_at"].endswith("+00:00")


def test_what_a_run_uses_is_kept(cache: tuple[Bench, Environments]) -> None:
    bench, here = cache
    spec = EnvironmentSpec()
    prepare_environment(here, spec, null_sink)
    name = here.folder_of(spec.id).name
    held = here.hold(spec.id)
    assert held is not None
    with held:
        assert list_environments(bench).environments[0].is_in_use
        with pytest.raises(Conflict, match="used by a run"):
            remove_environments(bench, [name[:6]], now_s=0.0)
        assert remove_environments(bench, [], unused_s=0.0, now_s=1e12).kept.keys() == {name}
    assert remove_environments(bench, [name[:6]], now_s=0.0).size_bytes > 0
    assert not here.find(spec.id).is_ready
    assert list(here.folder.iterdir()) == []
    with pytest.raises(NotFound, match="no environment"):
        remove_environments(bench, [name], now_s=0.0)


def test_those_that_no_run_has_used_for_long(cache: tuple[Bench, Environments]) -> None:
    bench, here = cache
    old, young = EnvironmentSpec(), EnvironmentSpec(pip=("xxhash",))
    for spec in (old, young):
        prepare_environment(here, spec, null_sink)
        held = here.hold(spec.id)
        assert held is not None
        held.close()
    now_s = (here.folder_of(young.id) / "used").stat().st_mtime
    os.utime(here.folder_of(old.id) / "used", (now_s - 40 * DAY_S,) * 2)
    result = remove_environments(bench, [], unused_s=30 * DAY_S, now_s=now_s)
    assert [one.id for one in result.removed] == [here.folder_of(old.id).name]
    assert here.find(young.id).is_ready


def test_another_index_makes_another_environment_and_another_login_does_not(tmp_path: Path) -> None:
    def place(**variables: str) -> Path:
        return Environments(tmp_path, variables).folder_of("0123")

    assert place() == tmp_path / "0123"
    one = place(PIP_INDEX_URL="https://me:first@host/simple")
    assert one == place(PIP_INDEX_URL="https://me:second@host/simple", PIP_TIMEOUT="3")
    assert one != place(PIP_INDEX_URL="https://other/simple")


def test_projects_share_one_folder(tmp_path: Path) -> None:
    folders = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".amlctl.toml").touch()
        app = open_app(tmp_path / name, {"PATH": "/usr/bin"})
        folders.add(app.environments_dir)
    assert folders == {Path(os.environ["XDG_CACHE_HOME"]) / "amlctl" / "environments"}
    chosen = open_app(tmp_path / "a", {"AMLCTL_ENVIRONMENTS_DIR": str(tmp_path / "c")})
    assert chosen.environments_dir == tmp_path / "c"
