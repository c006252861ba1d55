from __future__ import annotations

import pytest

from amlctl.core.environment import EnvironmentSpec
from amlctl.core.events import Note
from amlctl.errors import SettingsError
from amlctl.operations import environment
from tests.support.bench import Bench

FILE = """
    # a comment
    name: example
    channels: [conda-forge]
    dependencies:
      - python=3.11
      - numpy=2.1
      - pip:
        - torch==2.13.0
"""


def test_what_a_submit_would_use_is_shown_without_making_it(bench: Bench) -> None:
    bench.write("pptdaml.yaml", FILE)
    document = environment.show(bench).to_json()
    assert document["is_ready"] is False
    assert document["source"] == "pptdaml.yaml"
    assert document["pip"] == ["torch==2.13.0"]
    assert document["id"] == environment.show(bench).to_json()["id"]
    assert not [path for path in (bench.project.state_dir / "environments").glob("*") if path.is_dir()]


def test_without_a_file_the_environment_is_plain_python(bench: Bench) -> None:
    view = environment.show(bench)
    assert (view.spec.conda, view.spec.pip) == ((), ())
    assert "pptdaml.yaml" in bench.reported(Note)[0].message


def test_the_present_interpreter_is_ready(bench: Bench) -> None:
    view = environment.prepare(bench, chosen=EnvironmentSpec(is_current=True))
    assert view.info.is_ready
    assert view.info.id == "current"


def test_a_broken_file_is_reported_with_its_place(bench: Bench) -> None:
    bench.write("pptdaml.yaml", "dependencies: [\n")
    with pytest.raises(SettingsError, match=r"pptdaml\.yaml"):
        environment.show(bench)
