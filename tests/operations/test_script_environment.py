"""The environment that a script's inline block (PEP 723) asks for, where the project has no file for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from amlctl.core.events import Note
from amlctl.errors import SettingsError
from amlctl.operations.submit.submit import plan
from amlctl.workspaces.azureml.assets import conda_document
from amlctl.workspaces.local.workspace import LocalWorkspace
from tests.support.bench import Bench
from tests.support.wheels import copy_installed, make_wheel

BLOCK = """
    # /// script
    # requires-python = ">=3.9"
    # dependencies = ["leaf==1.0"]
    # ///
    import leaf
    print("leaf is", leaf.VALUE)
"""


@pytest.fixture
def offline(bench: Bench, tmp_path: Path) -> Bench:
    """With an index that has `leaf`."""
    wheels = tmp_path / "wheels"
    copy_installed(wheels, "xxhash")
    make_wheel(wheels, "leaf", text="VALUE = 42")
    variables = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}
    bench.workspace = LocalWorkspace(bench.project, bench.settings.workspace(), bench.store, variables=variables)
    return bench


def test_its_dependencies_are_enough(offline: Bench) -> None:
    script = offline.script(BLOCK)
    record = offline.submit(script, environment=None).record
    assert record.status == "Completed"
    assert b"leaf is 42" in offline.workspace.read_log(record.run, 0).data
    assert not [note for note in offline.reported(Note) if "No pptdaml.yaml" in note.message]
    repeated = offline.submit(from_run=record.run).record
    assert repeated.spec.environment == record.spec.environment
    assert repeated.status == "Completed"


def test_azure_ml_gets_them_as_the_list_for_pip(offline: Bench) -> None:
    from amlctl.config.environment_file import recorded_environment

    script = offline.script(BLOCK)
    record = offline.submit(script, environment=None).record
    document = conda_document(recorded_environment(record, {})[0])
    assert document["dependencies"][0] == "python>=3.9"
    assert document["dependencies"][-1] == {"pip": ["leaf==1.0", "xxhash>=3.4"]}


def test_the_projects_file_decides_where_there_is_one(offline: Bench) -> None:
    script = offline.script(BLOCK)
    own = plan(offline, offline.request(script, environment=None)).environment.id
    offline.write("pptdaml.yaml", "dependencies: [python>=3.9]\n")
    assert plan(offline, offline.request(script, environment=None)).environment.id != own
    assert any("its dependencies are not used" in note.message for note in offline.reported(Note))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('dependencies = "leaf"', r"train\.py:2: dependencies must be a list"),
        ('dependencies = ["leaf=="]', r"train\.py:2: 'leaf==' is not a valid requirement"),
        ('dependencies = ["nosuchpackage==9"]', r"train\.py:2: packages cannot be installed: .*nosuchpackage==9"),
        ('requires-python = "three"', r"train\.py:2: requires-python 'three' is not a valid version"),
        ('requires-python = "<3.8"', r"train\.py:2: Python <3\.8 is too old"),
    ],
)
def test_what_is_wrong_has_its_line(offline: Bench, line: str, message: str) -> None:
    script = offline.script(f"# /// script\n# {line}\n# ///\n")
    with pytest.raises(SettingsError, match=message):
        plan(offline, offline.request(script, environment=None))
