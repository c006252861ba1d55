"""The user's script as a process: its command, its variables, what it leaves behind, and how it is asked to end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Callable, NamedTuple, Optional

import amlctl
from amlctl.core.hidden_values import filled
from amlctl.core.job import KEPT_PATH, command_line, filled_in
from amlctl.core.run import RunRecord
from amlctl.errors import NotFound, SettingsError
from amlctl.localfs.atomic import link_to
from amlctl.localfs.folders import walk
from amlctl.runtime.process_tree import end_descendants, in_words, reap_adopted
from amlctl.runtime.tracking import TRACKING_VARIABLE, tracking_variables

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _ignore(number: int, frame: FrameType | None) -> None:
    """The interpreter writes to the pipe only for signals with a handler."""


class Wakeups:
    """A context manager for the main thread; its end restores the earlier handlers."""

    def __init__(self) -> None:
        # What the caller ignores, as nohup does with SIGHUP, stays ignored.
        wanted = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._numbers = (*wanted, signal.SIGCHLD)

    def __enter__(self) -> Wakeups:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._old_descriptor = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._old_handlers = {number: signal.signal(number, _ignore) for number in self._numbers}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_descriptor)
        os.close(self._reader)
        os.close(self._writer)

    def wait(self, timeout_s: float) -> set[int]:
        """The stop signals since the last call; returns at once if there were any, or a child ended."""
        select.select([self._reader], [], [], max(0.0, timeout_s))
        arrived: set[int] = set()
        while True:
            try:
                arrived.update(os.read(self._reader, 4096))
            except BlockingIOError:
                return arrived - {signal.SIGCHLD}


OUTPUTS_VARIABLE = "AMLCTL_OUTPUTS_DIR"
_FOREVER_S = 3600.0


class NodeFolders:
    """The parts of the working container."""

    def __init__(self, container: Path, outputs_dir: Path) -> None:
        self.container, self.outputs_dir = container, outputs_dir
        self.pipeline_dir = container / "pipeline"
        """From the code snapshot."""
        self.data_blobs_dir = container / "data_blobs"
        self.config_dir = container / "config"
        self.state_dir = container / ".amlctl-node"
        """The runtime's own notes about this node."""
        self.saved_marker = self.state_dir / "outputs-saved"
        """Exists once the script has ended and the store has all of its outputs."""


@dataclass(frozen=True)
class ScriptEnd:
    """`exit_code` is 128 + N after signal N; `was_stopped`: a stop signal came before its end."""

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

    A job's command (`script` is None) finds its modules by itself, as on Azure ML.
    """
    shipped = str(Path(amlctl.__file__).resolve().parent.parent)
    variables = dict(inherited)
    variables.update({name: value for name, value in record.spec.variables.items() if value is not None})
    # The runtime's own copy of the package must not hide one that the environment has.
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
    if not variables.get(TRACKING_VARIABLE):
        variables.update(tracking_variables(folders.outputs_dir))
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


def never_due() -> float:
    return _FOREVER_S


def wait_for_script(
    process: subprocess.Popen[bytes], wakeups: Wakeups, grace_s: float, look: Callable[[], float] = never_due
) -> ScriptEnd:
    """Wait for its end. A stop signal is passed on; a script that is still running `grace_s` later is killed. `look` is
    called meanwhile, and says after how many seconds it wants to be called next."""
    kill_at: float | None = None
    while process.poll() is None:
        left_s = _FOREVER_S if kill_at is None else kill_at - time.monotonic()
        if left_s <= 0:
            signal_group(process.pid, signal.SIGKILL)
            left_s = _FOREVER_S
        for number in wakeups.wait(min(left_s, look())):
            if kill_at is None:
                kill_at = time.monotonic() + grace_s
            signal_group(process.pid, number)
        reap_adopted({process.pid})
    code = process.returncode
    return ScriptEnd(128 - code if code < 0 else code, kill_at is not None)


def end_leftovers(script: subprocess.Popen[bytes], keep: Collection[int], log: Callable[[str], None]) -> None:
    """Processes that the script left in the background end with it, also those in sessions of their own."""
    if sys.platform != "linux":
        signal_group(script.pid, signal.SIGKILL)  # orphans cannot be found there but by their group
    if ended := end_descendants(keep):
        log(f"ended {in_words(ended)}")


def signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


_SHELLS = ("/bin/bash", "/bin/sh")


def prepare_job(
    record: RunRecord,
    folders: NodeFolders,
    variables: Mapping[str, str],
    secrets: Mapping[str, str],
    given: Mapping[str, str],
) -> tuple[list[str], dict[str, str]]:
    """What is started, and its variables. Makes the folders of its outputs, and `./outputs`, as a job on Azure ML has
    it.

    `given` are paths of inputs and outputs that Azure ML has mounted, by name: `outputs.model`, say.
    Raises SettingsError, OSError.
    """
    spec = record.spec
    values = {f"inputs.{name}": filled(one["value"], secrets) for name, one in spec.inputs.items() if "value" in one}
    paths = {
        f"inputs.{name}": str(folders.data_blobs_dir / one["dataset"])
        for name, one in spec.inputs.items()
        if "dataset" in one
    }
    for name, kind in spec.named_outputs.items():
        if f"outputs.{name}" in given:
            continue
        path = folders.outputs_dir / name
        if kind == "uri_folder":
            path.mkdir(parents=True, exist_ok=True)
        paths[f"outputs.{name}"] = str(path)
    paths.update(given)
    folders.pipeline_dir.mkdir(exist_ok=True)
    link = folders.pipeline_dir / "outputs"
    with suppress(FileExistsError):  # another process of the node, or an earlier attempt
        if not link_to(link, folders.outputs_dir):
            raise SettingsError(
                "the node's disk has no symbolic links, so ./outputs of the job's code cannot be kept",
                hint="write to the folder that AMLCTL_OUTPUTS_DIR names, from a script instead of a job file",
            )
    if not link.is_symlink():
        raise SettingsError("the job's code has an outputs folder of its own", hint="name outputs/ in .amlignore")
    own = {name: filled_in(value, values, paths) for name, value in spec.variables.items() if value is not None}
    # `python` is that of the environment, also where it is the one that amlctl runs in.
    here = os.pathsep.join([str(Path(sys.executable).parent), variables.get("PATH", os.defpath)])
    programs = variables.get(KEPT_PATH) or here
    shell = next((shell for shell in _SHELLS if os.path.exists(shell)), "sh")
    text = command_line(filled(spec.command, secrets), values, paths)
    named = place_variables({**values, **paths, "outputs.default": str(folders.outputs_dir)})
    return [shell, "-c", text], {**variables, **named, **own, "PATH": programs}


class ScriptStart(NamedTuple):
    """The file system's time in nanoseconds: files that the script writes have a later one. `beside` are the names in
    the folder of the working folder."""

    at_ns: int
    beside: frozenset[str]


def start_of_script(folders: NodeFolders) -> ScriptStart:
    marker = _marker(folders)
    marker.write_bytes(b"\n")  # a touch may be refused where a write is not
    return ScriptStart(marker.stat().st_mtime_ns, _beside(folders))


def _beside(folders: NodeFolders) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folders.container.parent))
    except OSError:
        return frozenset()


def has_started(folders: NodeFolders) -> bool:
    """Whether a process of the node was about to start its script."""
    return os.path.exists(_marker(folders))


def _marker(folders: NodeFolders) -> Path:
    return folders.state_dir / "started"


_KEPT_BY_AZURE_ML = ("outputs", "logs", "user_logs", "system_logs", "azureml-logs", "azureml-setup")


class FilesNotKept(NamedTuple):
    """How many files: by the dataset that would have to be produced to keep them, and, of all others, by what of the
    working folder they are in."""

    data: Mapping[str, int]
    others: Mapping[str, int]


def files_not_kept(record: RunRecord, folders: NodeFolders, start: ScriptStart) -> FilesNotKept:
    """Those in the working folder that were written since then and that are in no output, and those in new folders
    beside it (`../models`); without caches."""
    root, data_dir = folders.container, folders.data_blobs_dir.name
    kept = {str(folders.outputs_dir), str(folders.config_dir)}
    if folders.outputs_dir.parent != root:
        kept.update(str(root / name) for name in _KEPT_BY_AZURE_ML)
    data: Counter[str] = Counter()
    others: Counter[str] = Counter()
    for folder, below, names in walk(root):
        parts = Path(folder).relative_to(root).parts
        is_data = parts[:1] == (data_dir,)
        below[:] = [name for name in below if f"{folder}/{name}" not in kept and (is_data or name[0] not in "._")]
        for name in names:
            if not (is_data or name[0] not in "._") or not _was_written(f"{folder}/{name}", start.at_ns):
                continue
            if is_data:
                data[_dataset_of(Path(*parts[1:], name), record)] += 1
            else:
                others["/".join((*parts, name)[: 2 if parts[:1] == (folders.pipeline_dir.name,) else 1])] += 1
    for beside in _beside(folders) - start.beside if start.beside else ():
        # Of a local run those of its other nodes are amlctl's own, and data on its way.
        if beside[0] not in "._" and not beside.startswith((root.name.partition("-")[0], "data-")):
            others[f"../{beside}"] = sum(len(names) for _, _, names in walk(root.parent / beside))
    others += Counter()  # without folders that have no files
    return FilesNotKept(
        {dataset: files for dataset, files in sorted(data.items()) if dataset not in record.spec.produces},
        dict(sorted(others.items())),
    )


def _was_written(path: str, since_ns: int) -> bool:
    try:
        seen = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(seen.st_mode) and seen.st_mtime_ns > since_ns


def _dataset_of(path: Path, record: RunRecord) -> str:
    """The produced dataset or the input that `path` lies in, else what would be one: `raw/x`, `working/x`."""
    for dataset in (*record.spec.produces, *sorted(record.spec.manifests, reverse=True)):
        if path == Path(dataset) or Path(dataset) in path.parents:
            return dataset
    return Path(*path.parts[:2]).as_posix()
