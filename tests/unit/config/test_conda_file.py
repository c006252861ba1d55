from __future__ import annotations

from pathlib import Path

import pytest

from amlctl.config.environment_file import parse_environment, read_environment
from amlctl.errors import NotFound, SettingsError

FILE = """\
# what the scripts need
name: example
channels:
  - conda-forge
dependencies:
  - python=3.11
  - numpy=2.1
  - pip
  - pip:
      - torch==2.13.0
      - --extra-index-url https://example.org/simple
      - tool @ https://example.org/tool-1.0-py3-none-any.whl
prefix: /opt/conda/envs/example
"""


def test_a_conda_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "pptdaml.yaml").write_text(FILE)
    spec = read_environment(tmp_path / "pptdaml.yaml")
    assert spec.source == "pptdaml.yaml"
    assert spec.python == "3.11"
    assert spec.channels == ("conda-forge",)
    assert spec.conda == ("numpy=2.1", "pip")
    assert spec.pip == (
        "torch==2.13.0",
        "--extra-index-url https://example.org/simple",
        "tool @ https://example.org/tool-1.0-py3-none-any.whl",
    )


def test_only_what_matters_is_in_the_id() -> None:
    other = """\
dependencies:
  - pip:
      - tool @ https://example.org/tool-1.0-py3-none-any.whl
      - "torch==2.13.0"   # training
      - --extra-index-url https://example.org/simple
  - pip
  - numpy=2.1
  - python 3.11.*
channels: [conda-forge]
name: another
"""
    one = parse_environment(FILE, "a").id
    assert parse_environment(other, "b").id == one
    assert parse_environment(FILE.replace("2.13.0", "2.13.1"), "a").id != one
    assert parse_environment(FILE.replace("3.11", "3.12"), "a").id != one
    assert parse_environment(FILE.replace("- conda-forge", "- defaults"), "a").id != one


@pytest.mark.parametrize(
    ("written", "version"),
    [
        *[("python", ""), ("python=3.11", "3.11"), ("python 3.11", "3.11"), ("python=3.11.*", "3.11")],
        *[("python =3.11.4", "3.11.4"), ("python==3.11.4", "==3.11.4"), ("python>=3.10", ">=3.10")],
        *[("python >= 3.10, <3.13", ">=3.10,<3.13"), ("python=3.11=h1_cpython", "3.11")],
        *[("conda-forge::python=3.9", "3.9"), ("python 3.11.* *_cpython", "3.11"), ("python!=3.10.1", "!=3.10.1")],
    ],
)
def test_the_version_of_python(written: str, version: str) -> None:
    spec = parse_environment(f"dependencies:\n  - {written!r}\n", "pptdaml.yaml")
    assert (spec.python, spec.conda) == (version, ())


def test_packages_whose_name_begins_with_python_are_packages() -> None:
    spec = parse_environment("dependencies: [python-dateutil, python.app, pythonnet=3]\n", "pptdaml.yaml")
    assert (spec.python, spec.conda) == ("", ("python-dateutil", "python.app", "pythonnet=3"))


@pytest.mark.parametrize("text", ["", "# nothing\n", "name: x\n", "dependencies:\n", "dependencies:\n- pip:\n"])
def test_nothing_wanted_is_plain_python(text: str) -> None:
    spec = parse_environment(text, "pptdaml.yaml")
    assert (spec.python, spec.conda, spec.pip) == ("", (), ())


@pytest.mark.parametrize(
    ("text", "line", "message", "hint"),
    [
        ("name: x\ndependancies:\n  - a\n", 2, "dependancies", "dependencies?"),
        ("name: x\nfoo: 1\n", 2, "foo", "channels"),
        ("dependencies:\n  - a\nname: x\ndependencies: []\n", 4, "twice", ""),
        ("dependencies:\n  - a\n  - 3.11\n", 3, "3.11", "quotes"),
        ("dependencies:\n  - a\n  -\n", 3, "None", ""),
        ("dependencies: numpy\n", 1, "list", ""),
        ("dependencies:\n  - a\n  - [b]\n", 3, "must be a string", ""),
        ("channels: conda-forge\n", 1, "channels", ""),
        ("channels:\n  - a\n  - 1\n", 3, "1", ""),
        ("dependencies:\n  - pip:\n      - a\n      - 2\n", 4, "2", ""),
        ("dependencies:\n  - pip: torch\n", 2, "pip", ""),
        ("dependencies:\n  - npm:\n      - left-pad\n", 2, "npm", "pip"),
        ("dependencies:\n  - pip: [a]\n  - pip: [b]\n", 3, "twice", ""),
        ("dependencies:\n  - python=3.11\n  - python=3.12\n", 3, "twice", ""),
        ("dependencies:\n  - numpy\n  - numpy\n", 3, "twice", ""),
        ("dependencies:\n  - python=three\n", 2, "three", "python=3.11"),
        ("dependencies:\n  - '=2.0'\n", 2, "not a package", ""),
        ("dependencies:\n  - pip:\n      - torch=2.13\n", 3, "torch=2.13", "torch==2.13.0"),
        ("dependencies:\n  - pip:\n      - -r requirements.txt\n", 3, "another file", "into this list"),
        ("dependencies:\n  - pip:\n      - -e .\n", 3, "-e .", "wheel"),
        ("variables:\n  A: b\n", 1, "variables", "--env"),
        ("dependencies:\n\t- a\n", 2, "YAML", ""),
        ("dependencies: [\n", 2, "YAML", ""),
        ("a: b: c\n", 1, "YAML", ""),
        ("name: x\nx-amlctl: 5\n", 2, "x-amlctl", ""),
        ("x-amlctl:\n  constraints: 5\n", 2, "list", ""),
        ("x-amlctl:\n  local_files: [a]\n", 2, "mapping", ""),
        ("x-amlctl:\n  local_files: {a: 5}\n", 2, "string", ""),
        ("- a\n", 1, "not a conda environment file", "dependencies"),
        ("name: !!python/name:os.system\n", 1, "YAML", ""),
        ("name: 2026-13-45\n", 1, "month", ""),
        ("3: x\n", 1, "string", ""),
        ("name: &a [*a]\n", 1, "itself", ""),
    ],
)
def test_a_broken_file_says_where(text: str, line: int, message: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_environment(text, "pptdaml.yaml")
    assert caught.value.message.startswith(f"pptdaml.yaml:{line}: ")
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_aliases_that_come_to_billions_are_refused() -> None:
    steps = "".join(f"  - &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
    with pytest.raises(SettingsError, match="more than 100,000 values"):
        parse_environment(f"name:\n  - &a0 [x]\n{steps}channels: [*a29]\n", "pptdaml.yaml")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "pptdaml.yaml"
    with pytest.raises(NotFound, match=r"pptdaml\.yaml") as caught:
        read_environment(path)
    assert caught.value.hint.startswith("amlctl init")
    path.write_bytes(b"name: \xff\n")
    with pytest.raises(SettingsError, match="UTF-8"):
        read_environment(path)
    path.write_bytes(b"\xef\xbb\xbfname: x\r\ndependencies:\r\n- a\r\n")
    assert read_environment(path).conda == ("a",)


def test_an_error_of_a_merged_key_names_the_line_of_the_value_that_is_used() -> None:
    text = "<<:\n- channels: one\n- channels: [two]\n"
    with pytest.raises(SettingsError, match=r"^pptdaml\.yaml:2: channels must be a list$"):
        parse_environment(text, "pptdaml.yaml")
