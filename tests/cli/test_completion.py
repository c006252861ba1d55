"""What shells complete: values of every option, in bash, zsh and fish as they are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup, TyperOption

from amlctl.cli.app import root_command
from amlctl.cli.command_group import COMMANDS, load
from amlctl.cli.completion import offer_values
from tests.cli.conftest import Cli
from tests.cli.terminal import Terminal

FREE = {
    *("--set", "--env", "--secret", "--timeout", "--instances", "--processes", "--name", "--tag", "--limit", "--tail"),
    "--parallel",
    *("--include", "--register", "--jobs", "--bwlimit", "--older-than", "--unused", "--keep", "--adopt", "--expires"),
    *("--parallel", "--store", "--to", "--output", "--project"),  # the shell completes paths
}
"""Options whose values the user invents, or that the shell itself completes."""


@pytest.fixture
def full(project: Cli) -> Cli:
    """A project with something of every kind to complete."""
    project.write("pipeline/deep/train.py", "print('hello')")
    project.write("pipeline/deep/configs/base.json", "{}")
    project.write("pipeline/deep/configs/large.yaml", "{}")
    project.write("compute/gpu.yaml", "name: gpu\ntype: amlcompute\nsize: Standard_NC6s_v3\n")
    project.write("data_blobs/working/table.csv", "1")
    settings = project.cwd / ".amlctl.toml"
    settings.write_text(settings.read_text() + '\n[workspaces.cloud]\ncompute = "azureml"\n')
    return project


def completed(cli: Cli, typed: str) -> list[str]:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_AMLCTL_COMPLETE": "complete_bash"}
    return cli(variables=words).out.split()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("submit train.py --config ", ["base.json", "large.yaml"]),
        ("submit train.py --config deep/c", ["deep/configs/base.json", "deep/configs/large.yaml"]),
        ("submit --compute ", ["gpu", "local"]),
        ("--workspace ", ["local", "cloud"]),
        ("submit train.py --workspace c", ["cloud"]),
        ("runs list --status c", ["CancelRequested", "Canceled", "Completed"]),
        ("submit --mode ", ["mount", "download"]),
        ("submit --distribution ", ["pytorch", "mpi", "tensorflow"]),
        ("sync --layout m", ["mirror"]),
        ("sync data_blobs/working/t", ["data_blobs/working/table.csv"]),
        ("submit --produces w", ["working"]),
        ("help sub", ["submit"]),
        ("compute start g", ["gpu"]),
    ],
)
def test_values_complete(full: Cli, typed: str, expected: list[str]) -> None:
    assert sorted(set(completed(full, f"amlctl {typed}"))) == sorted(set(expected))


def test_runs_of_a_sweep_complete_before_this_machine_has_seen_them(full: Cli) -> None:
    children = [{"run": f"s_{number}", "name": "", "status": "Queued"} for number in (0, 1, 10)]
    full.write(".amlctl/runs/s/record.json", json.dumps({"children": children}))
    assert completed(full, "amlctl logs s") == ["s"]
    assert completed(full, "amlctl logs s_") == ["s_0", "s_1", "s_10"]
    assert completed(full, "amlctl logs s_1") == ["s_1", "s_10"]
    assert completed(full, "amlctl logs t_1") == []


def test_what_runs_have_used_completes(full: Cli) -> None:
    full("sync", "working/table.csv")
    options = ("--env-from", "current", "--experiment", "first-try", "--dataset", "working/table.csv")
    full.json("submit", "train.py", *options)
    [snapshot] = full.json("runs", "show")["datasets"].values()
    assert completed(full, "amlctl runs list --experiment f") == ["first-try"]
    assert completed(full, "amlctl logs --file ") == ["std_log.txt"]
    assert completed(full, "amlctl sync working/table.csv --pull --snapshot ") == [snapshot]


def test_outside_a_project_no_value_is_offered(folder: Cli) -> None:
    assert completed(folder, "amlctl submit --config ") == []
    assert completed(folder, "amlctl --workspace ") == []


def every_option() -> Iterator[tuple[str, object]]:
    for name in COMMANDS:
        command = load(name)
        offer_values(command, root_command())
        for one in command.commands.values() if isinstance(command, TyperGroup) else [command]:
            for param in one.params:
                if isinstance(param, TyperOption) and not param.is_flag and not param.hidden:
                    yield f"{name} {one.name} {param.opts[0]}", param


def test_every_option_with_known_values_completes() -> None:
    silent = [
        name
        for name, param in every_option()
        if "shell_complete" not in vars(param) and param._custom_shell_complete is None  # type: ignore[attr-defined]
    ]
    assert [name for name in silent if name.split()[-1] not in FREE] == []


SCRIPTS = {
    "bash": 'COMP_WORDS=(amlctl submit train.py --config b); COMP_CWORD=4; {function} amlctl; echo "${{COMPREPLY[@]}}"',
    "fish": "complete -C 'amlctl submit train.py --config b'",
}


def prepared_shell(project: Cli, home: Path, shell: str) -> tuple[str, dict[str, str], str]:
    """The program, its variables, and what `--show-completion` prints in it."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    variables = {**os.environ, "HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    variables.pop("XDG_CONFIG_HOME", None)
    shown = project(variables={"_AMLCTL_COMPLETE": f"source_{shell}"}).out
    return program, variables, shown


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_a_real_shell_completes(full: Cli, tmp_path: Path, shell: str) -> None:
    program, variables, shown = prepared_shell(full, tmp_path, shell)
    function = next((line.split("(")[0] for line in shown.splitlines() if line.endswith("() {")), "")
    script = f"{shown}\n{SCRIPTS[shell].format(function=function)}\n"
    answer = subprocess.run(
        [program, "-c", script], cwd=full.cwd, env=variables, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split()[0] == "base.json", answer


def test_zsh_completes(full: Cli, tmp_path: Path) -> None:
    program, variables, shown = prepared_shell(full, tmp_path, "zsh")  # which completes only on a terminal
    (tmp_path / "amlctl.zsh").write_text(shown)
    terminal = Terminal([program, "-f", "-i"], full.cwd, variables=variables)
    try:
        terminal.type("autoload -U compinit; compinit -u -D; source ~/amlctl.zsh; PS1='rea''dy> '\n")
        terminal.wait_for("ready> ")
        terminal.type("amlctl submit train.py --config b\t")
        terminal.wait_for("ase.json")
    finally:
        terminal.close()
