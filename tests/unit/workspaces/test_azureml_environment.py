"""What Azure ML could not make is refused before anything is sent, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from amlctl.config.environment_file import read_environment
from amlctl.errors import SettingsError
from amlctl.workspaces.azureml.assets import check_environment, conda_document
from tests.support.wheels import make_wheel


def write(folder: Path, *lines: str, python: str = ">=3.9") -> Path:
    (folder / "bounds.txt").write_text("six<2\n")
    (folder / "base.txt").write_text("six\n")
    make_wheel(folder, "own")
    text = f"dependencies:\n- python{python}\n- pip:\n" + "".join(f"  - {line}\n" for line in lines)
    (folder / "pptdaml.yaml").write_text(text)
    return folder / "pptdaml.yaml"


@pytest.mark.parametrize(
    ("line", "place", "reported"),
    [
        ("./own-1.0-py3-none-any.whl", "pptdaml.yaml:4", "file of this machine"),
        ("--find-links .", "pptdaml.yaml:4", "file of this machine"),
        ("-c bounds.txt", "bounds.txt:1", "constraint"),
        ("six==1.0 --hash=sha256:ab", "pptdaml.yaml:4", "hash"),
    ],
)
def test_what_needs_this_machine(tmp_path: Path, line: str, place: str, reported: str) -> None:
    spec = read_environment(write(tmp_path, line))
    with pytest.raises(SettingsError) as caught:
        check_environment(spec)
    assert caught.value.message.startswith(f"{place}: ")
    assert reported in caught.value.message


def test_a_python_that_is_too_old(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"pptdaml\.yaml:2: Python 3\.7 is too old"):
        check_environment(read_environment(write(tmp_path, "six", python="=3.7")))


def test_requirement_files_travel_as_lines(tmp_path: Path) -> None:
    spec = read_environment(write(tmp_path, "-r base.txt"))
    check_environment(spec)
    assert conda_document(spec)["dependencies"][-1] == {"pip": ["six", "xxhash>=3.4"]}
