from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace

import pytest

from amlctl.core.environment import EnvironmentSpec
from amlctl.errors import NotFound, SettingsError
from amlctl.localfs.project import Project
from amlctl.operations.doctor import run_checks
from amlctl.runs.code import MANY_BYTES
from amlctl.workspaces.contract import Check
from tests.support.bench import Bench
from tests.support.rights import ROOT_READS_ALL, run_without_root_rights


def checks(bench: Bench) -> dict[str, Check]:
    found = run_checks(lambda: bench.project, lambda: bench)
    return {check.name: check for check in found}


def failed(found: dict[str, Check]) -> Sequence[str]:
    return [name for name, check in found.items() if not check.ok]


def test_a_project_in_order_passes(bench: Bench) -> None:
    bench.script("print(1)")
    found = checks(bench)
    assert failed(found) == []
    assert {"project", "settings", "folders", "local state", "code", "disk", "store", "clock", "environment"} <= set(
        found
    )
    assert not list(bench.store.list("doctor/"))


def test_outside_a_project_only_that_is_reported() -> None:
    def nowhere() -> Project:
        raise NotFound("no .amlctl.toml here", hint="amlctl init")

    def unused() -> Bench:
        raise AssertionError

    found = run_checks(nowhere, unused)
    assert [check.name for check in found if not check.ok] == ["project"]
    assert found[-1].hint == "amlctl init"


def test_broken_settings_end_the_questions_that_need_them(bench: Bench) -> None:
    def broken() -> Bench:
        raise SettingsError(".amlctl.toml:3: …", hint="fix it")

    found = {check.name: check for check in run_checks(lambda: bench.project, broken)}
    assert failed(found) == ["settings"]
    assert "store" not in found
    assert "folders" in found


def test_data_among_the_code_is_found(bench: Bench) -> None:
    bench.write("pipeline/data_blobs/x.txt", "x")
    found = checks(bench)
    assert failed(found) == ["folders"]
    assert "pipeline/data_blobs" in found["folders"].message


def test_a_big_file_among_the_code_is_found(bench: Bench) -> None:
    path = bench.write("pipeline/model.bin")
    os.truncate(path, MANY_BYTES + 1)
    found = checks(bench)
    assert failed(found) == ["code"]
    assert "pipeline/model.bin" in found["code"].message
    bench.write(".amlctlignore", "*.bin\n")
    assert failed(checks(bench)) == []


def test_committed_local_state_is_found(bench: Bench) -> None:
    root = bench.project.root
    subprocess.run(["git", "init", "-q", "."], cwd=root, check=True)
    assert failed(checks(bench)) == []
    bench.write(".amlctl/runs/x", "x")
    subprocess.run(["git", "add", "-f", ".amlctl/runs/x"], cwd=root, check=True)
    assert failed(checks(bench)) == ["local state"]
    subprocess.run(["git", "rm", "-q", "--cached", "-r", ".amlctl"], cwd=root, check=True)
    (root / ".amlctl/.gitignore").write_text("")
    found = checks(bench)
    assert failed(found) == ["local state"]
    assert ".gitignore" in found["local state"].hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_that_cannot_be_written_is_found(bench: Bench) -> None:
    bench.store.put("x", b"x")
    folder = bench.project.root / ".amlctl/store"
    folder.chmod(0o555)
    try:
        assert failed(checks(bench)) == ["store"]
    finally:
        folder.chmod(0o755)


def test_a_broken_environment_file_is_found(bench: Bench) -> None:
    bench.write("pptdaml.yaml", "dependencies: [\n")
    found = checks(bench)
    assert failed(found) == ["environment"]
    assert "pptdaml.yaml" in found["environment"].message


def test_a_python_that_is_not_here_is_found(bench: Bench) -> None:
    bench.write("pptdaml.yaml", "dependencies:\n  - python=2.6\n")
    found = checks(bench)["environment"]
    has_conda = bench.workspace.environment(EnvironmentSpec()).tool != "uv"
    assert found.ok is has_conda
    assert has_conda or "2.6" in found.message


def test_a_broken_compute_file_is_reported_once(bench: Bench) -> None:
    bench.write("compute/local.yaml", "type: [\n")
    found = run_checks(lambda: bench.project, lambda: bench)
    [broken] = [check for check in found if not check.ok]
    assert broken.name == "compute"
    assert "run the command again" in broken.hint
    assert {"store", "environment"} <= {check.name for check in found}


def test_a_workspace_that_is_not_used_is_looked_at_as_well(bench: Bench) -> None:
    wrong = SettingsError(".amlctl.toml:3: no compute", hint="name one")
    settings = replace(bench.settings, broken={"cloud": wrong})
    found = run_checks(lambda: bench.project, lambda: replace(bench, settings=settings))
    [broken] = [check for check in found if not check.ok]
    assert (broken.name, broken.message) == ("workspace cloud", wrong.message)
    assert {"store", "environment"} <= {check.name for check in found}


@ROOT_READS_ALL
@pytest.mark.parametrize(("folder", "name"), [("pipeline", "folders"), (".amlctl/runs/of-another-user", "space")])
def test_a_folder_that_cannot_be_read_is_a_finding(bench: Bench, folder: str, name: str) -> None:
    bench.project.settings_file.touch()
    bench.write("outputs/of-another-user/model", "m")
    path = bench.project.root / folder
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0)
    program = "import sys; from amlctl.cli.app import run; sys.exit(run(sys.argv[1:]))"
    done = run_without_root_rights(program, "doctor", "--json", "--project", str(bench.project.root))
    path.chmod(0o755)
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert not found[name]["ok"]
    assert "permission denied" in found[name]["message"]
    assert {"code", "store", "environment"} <= found.keys()
