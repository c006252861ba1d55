"""The `pip:` list as pip reads it: what is taken, with what, and what is refused where."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amlctl.config.environment_file import parse_environment, read_environment, recorded_text
from amlctl.core.environment import EnvironmentSpec
from amlctl.errors import SettingsError
from tests.support.wheels import make_wheel


def write(folder: Path, *entries: str, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    list_of = "".join(f"  - {json.dumps(entry)}\n" for entry in entries)
    (folder / "pptdaml.yaml").write_text(f"dependencies:\n- python>=3.9\n- pip:\n{list_of}")
    return folder / "pptdaml.yaml"


def read(folder: Path, *entries: str, **files: str) -> EnvironmentSpec:
    return read_environment(write(folder, *entries, **files))


@pytest.mark.parametrize(
    ("entry", "lines"),
    [
        ("numpy  # for arrays", ["numpy"]),
        ("# nothing", []),
        ("six>=1.0 ; python_version >= '3.9'", ["six>=1.0 ; python_version >= '3.9'"]),
        ("six==1.0 --hash=sha256:ab", ["six==1.0 --hash=sha256:ab"]),
        ("six==1.0 \\\n  --hash=sha256:ab", ["six==1.0 --hash=sha256:ab"]),
        ("-i https://example.org/simple", ["--index-url https://example.org/simple"]),
        ("--extra-index-url=https://a.org/s --pre", ["--extra-index-url https://a.org/s", "--pre"]),
        ("--no-binary :all:", ["--no-binary :all:"]),
        ("https://example.org/x-1.0-py3-none-any.whl", ["https://example.org/x-1.0-py3-none-any.whl"]),
        ("x @ git+https://example.org/x@v1#egg=x", ["x @ git+https://example.org/x@v1#egg=x"]),
        ("one\ntwo==2", ["one", "two==2"]),
    ],
)
def test_lines_are_taken_as_pip_reads_them(tmp_path: Path, entry: str, lines: list[str]) -> None:
    assert list(read(tmp_path, entry).pip) == lines


@pytest.mark.parametrize(
    ("entry", "reported"),
    [
        ("-e .", "wheel"),
        ("--editable=./package", "wheel"),
        ("./package", "folder"),
        ("missing.whl", "does not exist"),
        ("./gone/x-1.0-py3-none-any.whl", "does not exist"),
        ("-r gone.txt", "gone.txt"),
        ("-r https://example.org/r.txt", "download"),
        ("--target /tmp", "--target"),
        ("--user", "--user"),
        ("six==1.0 --target=/tmp", "--target"),
        ("-r", "value"),
        ("six==", "six=="),
        ("x @ git+file:///srv/x", "repository"),
        ("file://[x/a.whl", "valid URL"),
        ("--find-links file://[x", "valid URL"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_its_line(tmp_path: Path, entry: str, reported: str) -> None:
    (tmp_path / "package").mkdir()
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, "numpy", entry)
    assert caught.value.message.startswith("pptdaml.yaml:5: ")
    assert reported in caught.value.message + caught.value.hint


def test_requirement_files_are_read_in_their_place_and_count(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/more.txt").write_text("two\n")
    first = read(tmp_path, "-r base.txt", base="one\n-r sub/more.txt\n-c bounds.txt\n", bounds="two<3\n")
    assert (first.pip, first.constraints) == (("one", "two"), ("two<3",))
    assert first.places["two"] == "sub/more.txt:1"
    (tmp_path / "bounds.txt").write_text("two<4\n")
    changed = read_environment(tmp_path / "pptdaml.yaml")
    assert changed.id != first.id


def test_a_fault_in_a_requirement_file_is_reported_with_its_own_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^base\.txt:3: "):
        read(tmp_path, "-r base.txt", base="# x\none\ntwo=3\n")


def test_requirement_files_in_a_circle_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="circle"):
        read(tmp_path, "-r a.txt", a="-r b.txt\n", b="-r a.txt\n")


def test_a_wheel_counts_by_its_content_wherever_it_lies(tmp_path: Path) -> None:
    one, two = tmp_path / "one place", tmp_path / "two"
    for folder in (one, two):
        make_wheel(folder, "own", text="VALUE = 1")
    specs = [read(folder, "./own-1.0-py3-none-any.whl") for folder in (one, two)]
    assert specs[0].id == specs[1].id
    make_wheel(two, "own", text="VALUE = 2")
    assert read_environment(two / "pptdaml.yaml").id != specs[0].id


def test_the_record_says_everything_without_the_files(tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "own")
    file = write(tmp_path, "-r base.txt", "--find-links wheels", base="own\n-c bounds.txt\n", bounds="own<3\n")
    spec = read_environment(file)
    recorded = recorded_text(file.read_text(), spec)
    (tmp_path / "base.txt").unlink()
    again = parse_environment(recorded, "record")
    assert (again.id, again.python, again.pip, again.constraints) == (spec.id, ">=3.9", spec.pip, spec.constraints)


def test_a_plain_file_is_recorded_as_it_is(tmp_path: Path) -> None:
    file = write(tmp_path, "numpy  # arrays")
    assert recorded_text(file.read_text(), read_environment(file)) == file.read_text()
