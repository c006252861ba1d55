"""A project with a folder as its store and real local runs in the present interpreter."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from amlctl.core.events import Event, null_sink
from amlctl.core.run import RunRecord, RunSpec
from amlctl.core.settings import Settings
from amlctl.core.store_keys import FORMAT_KEY
from amlctl.localfs.locks import is_held
from amlctl.localfs.project import Project
from amlctl.operations.logs import FollowOptions, InterruptChoice
from amlctl.operations.submit.result import SubmitResult
from amlctl.operations.submit.sources import SubmitRequest
from amlctl.operations.submit.submit import submit
from amlctl.stores.directory import DirectoryStore
from amlctl.stores.presence import RememberedStore
from amlctl.workspaces.local.run_paths import RunPaths
from amlctl.workspaces.local.starting import LocalTiming
from amlctl.workspaces.local.workspace import LocalWorkspace
from tests.support.context import Context
from tests.support.runs import wait_until
from tests.support.shared_runtime import RUNTIMES, share_runtime


def never_interrupted() -> InterruptChoice:
    raise AssertionError("Ctrl-C was not pressed")


@dataclass
class Bench(Context):
    """`events` are those of all submits so far."""

    workspace: LocalWorkspace = field(kw_only=True)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.sink is null_sink:
            self.sink = self.events.append

    def write(self, path: str, text: str = "") -> Path:
        target = self.project.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(textwrap.dedent(text), encoding="utf-8")
        return target

    def script(self, text: str, name: str = "train.py") -> str:
        self.write(f"pipeline/{name}", text)
        return name

    def request(self, script: str = "", **more: Any) -> SubmitRequest:
        given = {"cwd": self.project.root, "caller_variables": {}, **more}
        given.setdefault("environment", None if "from_run" in more else "current")
        names = {one.name for one in fields(RunSpec)}
        spec = {name: given.pop(name) for name in list(given) if name in names - {"sync", "from_run", "sweep"}}
        return SubmitRequest({"script": script, **spec}, **given)

    def submit(
        self,
        script: str = "",
        *,
        is_detached: bool = False,
        fetch_outputs: bool = True,
        on_interrupt: Callable[[], InterruptChoice] = never_interrupted,
        **more: Any,
    ) -> SubmitResult:
        return submit(
            self,
            self.request(script, **more),
            is_detached=is_detached,
            fetch_outputs=fetch_outputs,
            following=FollowOptions(on_interrupt),
        )

    def reported(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def with_settings(self, **changes: Any) -> Bench:
        return replace(self, settings=replace(self.settings, **changes))


def make_bench(root: Path) -> Bench:
    project = Project(root)
    for folder in (project.pipeline_dir, project.data_blobs_dir):
        folder.mkdir(parents=True)
    share_runtime(project.state_dir)
    return open_bench(root)


def open_bench(root: Path) -> Bench:
    """One that was made before, perhaps by another process."""
    project = Project(root)
    store = RememberedStore(DirectoryStore(root / ".amlctl/store"), project)
    timing = LocalTiming(save_interval_s=0.2, grace_s=5.0, poll_s=0.02)
    settings = Settings()
    variables = {name: value for name, value in os.environ.items() if not name.startswith("AMLCTL_")}
    workspace = LocalWorkspace(project, settings.workspace(), store, variables=variables, timing=timing)
    return Bench(project, store, workspace=workspace, settings=settings)


def copy_into(bench: Bench, made: Path) -> None:
    """Its project gets the files, the store and the finished runs of another one, as if they were its own."""
    leave_out = shutil.ignore_patterns(RUNTIMES)  # shared by all
    shutil.copytree(made, bench.project.root, symlinks=True, dirs_exist_ok=True, ignore=leave_out)
    bench.store.get(FORMAT_KEY)  # from now on it is a store that the project knows


def wait_until_tidied(bench: Bench) -> None:
    """A run that Completed is final a moment before its supervisor has removed its container."""
    wait_for_supervisors(bench.project.state_dir)


def wait_for_supervisors(state_dir: Path) -> None:
    """Until all have ended."""
    locks = [RunPaths(state_dir, folder.name).lock for folder in state_dir.glob("local/*")]
    wait_until(lambda: not any(map(is_held, locks)), "the end of the supervisors")


def wait_for_state(bench: Bench, run: str, *states: str) -> RunRecord:
    wait_until(lambda: bench.workspace.read(run).status in states, f"run {run} in {states}")
    return bench.workspace.read(run)
