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

_ALL_COMMANDS = """
import sys
from amlctl.cli.command_group import COMMANDS, load
from amlctl.cli.completion import offer_values
for name in COMMANDS:
    offer_values(load(name))
print("LOADED", *sorted(sys.modules), sep="\\n")
"""


def loaded_by(cwd: Path, *arguments: str, program: str = _PROGRAM) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=cwd, capture_output=True, text=True, check=True
    )
    return set(done.stdout.partition("LOADED\n")[2].split())


def below_terminal(loaded: set[str]) -> set[str]:
    messages = {"amlctl.core", "amlctl.core.message"}  # two classes, for which the options' own errors name commands
    ours = {name for name in loaded if name.startswith("amlctl.")} - messages
    return {name for name in ours if not name.startswith(("amlctl.cli", "amlctl.errors"))}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    subprocess.run([sys.executable, "-m", "amlctl", "init"], cwd=folder, capture_output=True, check=True)
    (folder / "data_blobs/working/x").mkdir()
    (folder / "data_blobs/working/x/file").write_text("1")
    return folder


def test_help_loads_the_table_only(tmp_path: Path) -> None:
    loaded = loaded_by(tmp_path, "--help")
    assert not below_terminal(loaded)
    assert not loaded & {"yaml", "xxhash", "azure", "sqlite3", "platformdirs", "concurrent.futures"}


def test_commands_load_their_operations_when_they_run(tmp_path: Path) -> None:
    """A shell that completes an option loads the command, and has 0.1 s."""
    assert not below_terminal(loaded_by(tmp_path, program=_ALL_COMMANDS))


def test_a_shell_that_completes_gets_no_more_than_it_needs(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_AMLCTL_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "amlctl submit x.py --config ")
    monkeypatch.setenv("COMP_CWORD", "4")
    loaded = loaded_by(project)
    assert "amlctl.cli.commands.submit" in loaded
    assert not loaded & {"json", "amlctl.core.run", "amlctl.config.settings", "yaml", "tomllib", "rich"}


@pytest.mark.parametrize("command", [("sync", "data_blobs/working/x"), ("runs",), ("status",), ("env", "show")])
def test_local_commands_load_no_cloud(project: Path, command: tuple[str, ...]) -> None:
    loaded = loaded_by(project, *command)
    assert not {name for name in loaded if name.split(".")[0] in ("azure", "msal", "requests")}


@pytest.mark.parametrize("command", [("sync", "data_blobs/working/x"), ("runs",)])
def test_rich_is_for_terminals(project: Path, command: tuple[str, ...]) -> None:
    assert not {name for name in loaded_by(project, *command) if name.split(".")[0] == "rich"}


def test_the_bars_of_a_sync_load_nothing_of_runs(tmp_path: Path) -> None:
    program = 'import amlctl.cli.render.live, sys\nprint("LOADED", *sys.modules, sep="\\n")'
    assert "amlctl.core.run" not in loaded_by(tmp_path, program=program)


@pytest.mark.parametrize("command", [("sync", "data_blobs/working/x"), ("runs",), ("status",)])
def test_typer_brings_no_pydantic(project: Path, command: tuple[str, ...]) -> None:
    assert not {name for name in loaded_by(project, *command) if name.split(".")[0] == "pydantic"}


@pytest.mark.parametrize("module", ["amlctl.workspaces.local.supervisor", "amlctl.runtime.__main__"])
def test_a_run_without_data_loads_what_it_needs(tmp_path: Path, module: str) -> None:
    loaded = loaded_by(tmp_path, program=f'import {module}, sys\nprint("LOADED", *sys.modules, sep="\\n")')
    for_others = {"localfs.identify", "localfs.ignore", "snapshots.receive", "snapshots.manifests", "runs.copies"}
    assert not loaded & {"sqlite3", "yaml", *(f"amlctl.{name}" for name in for_others)}
