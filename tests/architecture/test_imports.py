"""What a command loads: quick ones stay quick, and no cloud library comes along before it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import sys
from amlctl.cli.app import run
code = run(sys.argv[1:])
print("LOADED", *sorted(sys.modules), sep="\\n")
sys.exit(code)
"""


def loaded_by(cwd: Path, *arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments], cwd=cwd, capture_output=True, text=True, check=True
    )
    return set(done.stdout.partition("LOADED\n")[2].split())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    subprocess.run([sys.executable, "-m", "amlctl", "init"], cwd=folder, capture_output=True, check=True)
    (folder / "data_blobs/working/x").mkdir()
    (folder / "data_blobs/working/x/file").write_text("1")
    return folder


def test_help_loads_the_table_only(tmp_path: Path) -> None:
    loaded = loaded_by(tmp_path, "--help")
    messages = {"amlctl.core", "amlctl.core.message"}  # two classes, for which the options' own errors name commands
    ours = {name for name in loaded if name.startswith("amlctl.")} - messages
    assert not {name for name in ours if not name.startswith(("amlctl.cli", "amlctl.errors"))}
    assert not loaded & {"yaml", "xxhash", "azure", "sqlite3", "platformdirs", "concurrent.futures"}


@pytest.mark.parametrize("command", [("sync", "data_blobs/working/x"), ("runs",), ("status",), ("env", "show")])
def test_local_commands_load_no_cloud(project: Path, command: tuple[str, ...]) -> None:
    loaded = loaded_by(project, *command)
    assert not {name for name in loaded if name.split(".")[0] in ("azure", "msal", "requests")}


@pytest.mark.parametrize("command", [("sync", "data_blobs/working/x"), ("runs",)])
def test_rich_is_for_terminals(project: Path, command: tuple[str, ...]) -> None:
    assert not {name for name in loaded_by(project, *command) if name.split(".")[0] == "rich"}


@pytest.mark.parametrize("command", [("sync", "data_blobs/working/x"), ("runs",), ("status",)])
def test_typer_brings_no_pydantic(project: Path, command: tuple[str, ...]) -> None:
    assert not {name for name in loaded_by(project, *command) if name.split(".")[0] == "pydantic"}
