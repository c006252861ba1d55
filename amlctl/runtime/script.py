"""The user's script as a process: its command, its variables, and how it is asked to end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

import amlctl
from amlctl.core.run import RunRecord
from amlctl.errors import NotFound
from amlctl.runtime.process_tree import end_descendants, in_words, reap_adopted
from amlctl.runtime.wakeups import Wakeups

OUTPUTS_VARIABLE = "AMLCTL_OUTPUTS_DIR"
_FOREVER_S = 3600.0


@dataclass(frozen=True)
class NodeFolders:
    """What the working container consists of; `pipeline_dir` is part of the code snapshot."""

    container: Path
    outputs_dir: Path

    @property
    def pipeline_dir(self) -> Path:
        return self.container / "pipeline"

    @property
    def data_blobs_dir(self) -> Path:
        return self.container / "data_blobs"

    @property
    def config_dir(self) -> Path:
        return self.container / "config"

    @property
    def state_dir(self) -> Path:
        """The runtime's own notes about this node."""
        return self.container / ".amlctl-node"

    @property
    def saved_marker(self) -> Path:
        """Exists once the script has ended and the store has every one of its outputs."""
        return self.state_dir / "outputs-saved"


@dataclass(frozen=True)
class ScriptEnd:
    """`exit_code` is 128 + N after signal N; `was_stopped`: the script was asked to end before it did."""

    exit_code: int
    was_stopped: bool


def find_script(folders: NodeFolders, script: str) -> Path:
    """`script` is relative to the container or to its `pipeline/`. Raises NotFound."""
    for path in (folders.container / script, folders.pipeline_dir / script):
        if path.is_file():
            return path
    raise NotFound(f"the code snapshot has no script {script}", hint="submit it again")


def script_variables(
    record: RunRecord, folders: NodeFolders, script: Optional[Path], attempt: int, inherited: Mapping[str, str]
) -> dict[str, str]:
    """The script's environment. A variable without a value in the record is a secret and is inherited.

    A job's command (`script` is None) is left to find its modules by itself, as on Azure ML.
    """
    shipped = str(Path(amlctl.__file__).resolve().parent.parent)
    variables = dict(inherited)
    variables.update({name: value for name, value in record.spec.variables.items() if value is not None})
    # The runtime's own copy of the package must not stand in the way of one that the environment has.
    before = [
        path for path in variables.get("PYTHONPATH", "").split(os.pathsep) if path and os.path.realpath(path) != shipped
    ]
    paths = [] if script is None else [str(folders.pipeline_dir), str(script.parent)]
    variables.update(
        {
            "AMLCTL_PIPELINE_DIR": str(folders.pipeline_dir),
            "AMLCTL_DATA_BLOBS_DIR": str(folders.data_blobs_dir),
            OUTPUTS_VARIABLE: str(folders.outputs_dir),
            "AMLCTL_RUN_ID": record.run,
            "AMLCTL_ATTEMPT": str(attempt),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join(dict.fromkeys([*paths, *before])),
        }
    )
    return variables


def place_variables(places: Mapping[str, str]) -> dict[str, str]:
    """As Azure ML sets them for its own inputs and outputs: `inputs.data` is `AZURE_ML_INPUT_data`."""
    found = {}
    for place, value in places.items():
        kind, _, name = place.partition(".")
        found[f"AZURE_ML_{kind[:-1].upper()}_{name}"] = value
    return found


def start_script(command: Sequence[str], folder: Path, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start it in a process group of its own, so that its children get the signals too. Raises OSError."""
    return subprocess.Popen(
        list(command),
        cwd=folder,
        env=dict(variables),
        stdin=subprocess.DEVNULL,
        preexec_fn=os.setpgrp,  # no other thread runs yet; `process_group=` came with Python 3.11 only
    )


def script_command(script: Path, config: Path | None, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, str(script), *(["--config", str(config)] if config else []), *arguments]


def wait_for_script(process: subprocess.Popen[bytes], wakeups: Wakeups, grace_s: float) -> ScriptEnd:
    """Wait for its end. A stop signal is handed on; a script that is still there `grace_s` later is killed."""
    kill_at: float | None = None
    while process.poll() is None:
        left_s = _FOREVER_S if kill_at is None else kill_at - time.monotonic()
        if left_s <= 0:
            signal_group(process.pid, signal.SIGKILL)
            left_s = _FOREVER_S
        for number in wakeups.wait(left_s):
            if kill_at is None:
                kill_at = time.monotonic() + grace_s
            signal_group(process.pid, number)
        reap_adopted({process.pid})
    code = process.returncode
    return ScriptEnd(128 - code if code < 0 else code, kill_at is not None)


def end_leftovers(script: subprocess.Popen[bytes], keep: Collection[int], log: Callable[[str], None]) -> None:
    """What the script left running in the background ends with it, also in sessions of its own."""
    if sys.platform != "linux":
        signal_group(script.pid, signal.SIGKILL)  # orphans cannot be found there but by their group
    if ended := end_descendants(keep):
        log(f"ended {in_words(ended)}")


def signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
