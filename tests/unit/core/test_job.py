from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from amlctl.core.job import KEPT_PATH, command_line, filled_in, placeholders_in
from amlctl.errors import SettingsError
from amlctl.runtime.script import NodeFolders, prepare_job
from tests.support.runs import run_record

NASTY = '/a b/it\'s "here"/$HOME/`x`\\n'


@pytest.mark.parametrize("written", ["${{inputs.p}}", '"${{inputs.p}}"', "'${{ inputs.p }}'", '--x="${{inputs.p}}"'])
@pytest.mark.parametrize("path", [NASTY, "/plain/path", "/a b"])
def test_a_path_is_one_word_in_whatever_quotes(written: str, path: str) -> None:
    line = command_line(f"printf '%s|' it\\'s {written} \"after\"", {}, {"inputs.p": path})
    shown = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout
    assert shown == f"it's|{'--x=' if '--x' in written else ''}{path}|after|"


def test_values_are_text_as_in_azure_ml() -> None:
    line = command_line("x ${{inputs.a}} ${{inputs.a}}", {"inputs.a": "--b 1"}, {})
    assert shlex.split(line) == ["x", "--b", "1", "--b", "1"]
    assert filled_in("${{inputs.a}}:${{outputs.o}}", {"inputs.a": "v"}, {"outputs.o": "/a b"}) == "v:/a b"


def test_what_can_stand_for_nothing() -> None:
    assert placeholders_in("a ${{inputs.x}} ${{ outputs.y }}") == ["inputs.x", "outputs.y"]
    for text in ("${{inputs}}", "${{parent.inputs.x}}", "${{inputs.a-b}}", "${{}}"):
        with pytest.raises(SettingsError):
            placeholders_in(text)


@pytest.mark.parametrize("kept", ["", "/env/bin:/usr/bin"])
def test_a_command_finds_the_python_of_its_environment(tmp_path: Path, kept: str) -> None:
    """The runtime's own, unless it says that this one is another."""
    folders = NodeFolders(tmp_path, tmp_path / "outputs")
    folders.outputs_dir.mkdir()
    variables = {"PATH": "/usr/bin", **({KEPT_PATH: kept} if kept else {})}
    _, ready = prepare_job(run_record("r", "job.yml", command="true"), folders, variables, {}, {})
    assert ready["PATH"] == (kept or f"{Path(sys.executable).parent}:/usr/bin")
