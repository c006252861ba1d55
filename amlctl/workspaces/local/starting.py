"""Hands a run over: its place in the queue, and the supervisor, which outlives this process, with its settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState
from amlctl.core.secret_names import is_login_variable
from amlctl.errors import SettingsError
from amlctl.localfs.machine import utc_now
from amlctl.localfs.regular_file import open_regular
from amlctl.runs.records import save_both
from amlctl.stores.contract import Store
from amlctl.workspaces.local.run_paths import RunPaths, queue_folder
from amlctl.workspaces.local.slots import SlotQueue

if TYPE_CHECKING:
    from amlctl.core.compute import LocalTarget
    from amlctl.localfs.project import Project

SUPERVISOR_MODULE = "amlctl.workspaces.local.supervisor_program"
TOKEN_VARIABLE = "AMLCTL_STORE_TOKEN"


def credential_in(url: str | None) -> dict[str, str]:
    """The variable that carries a token in a store's URL to the supervisor: `Store.url` does not have it."""
    token = urlsplit(url or "").query
    return {TOKEN_VARIABLE: token} if token else {}


@dataclass(frozen=True)
class LocalTiming:
    """Seconds: between two saves of outputs and log; from SIGTERM to SIGKILL; and between
    two polls of the queue, of requests to cancel and of the timeout."""

    save_interval_s: float = 15.0
    grace_s: float = 30.0
    poll_s: float = 0.1


DEFAULT_TIMING = LocalTiming()


@dataclass(frozen=True)
class SupervisorSettings:
    """Folders are absolute; `ticket` is the path of a held ticket.

    `variables_descriptor` is the reading end of a pipe with the variables that must not be in the environment of a
    process, where every program of the user can read them: a JSON object of strings.
    `gpus` of those of the machine are shared by the slots; None: all.
    """

    state_dir: str
    store: str
    environments_dir: str
    slots: int
    gpus: int | None
    ticket: str
    ticket_descriptor: int
    variables_descriptor: int
    timing: LocalTiming

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> SupervisorSettings:
        document = json.loads(text)
        return cls(**{**document, "timing": LocalTiming(**document["timing"])})


@dataclass(frozen=True)
class Starter:
    """`variables` are what every run inherits."""

    project: Project
    store: Store
    environments_dir: Path
    variables: Mapping[str, str]
    timing: LocalTiming

    def start(
        self, paths: RunPaths, record: RunRecord, secrets: Mapping[str, str], lock: int, slots: int | None = None
    ) -> None:
        """Record the run as Queued and start its supervisor, which takes over the held lock of the run. `slots`:
        instead of those of the target.

        Raises SettingsError (compute target cannot be used), RightsError, ServiceUnavailable.
        """
        target = self.target(record.spec.compute)
        record.reached(RunState.QUEUED, utc_now())
        if (failure := save_both(paths.state_dir, self.store, record)) is not None:
            raise failure
        ticket = SlotQueue(queue_folder(self.project.state_dir, record.spec.compute)).take_ticket(record.run)
        reading, writing = os.pipe()
        settings = SupervisorSettings(
            state_dir=str(self.project.state_dir),
            store=self.store.url,
            environments_dir=str(self.environments_dir),
            slots=slots or target.slots,
            gpus=target.gpus,
            ticket=str(ticket.path),
            ticket_descriptor=ticket.descriptor,
            variables_descriptor=reading,
            timing=self.timing,
        )
        hidden = {name: value for name, value in self.variables.items() if is_login_variable(name, value)}
        hidden.update(secrets)
        plain = {name: value for name, value in self.variables.items() if name not in hidden}
        with open(writing, "wb") as pipe:
            try:
                _spawn(paths, settings, plain, (lock, ticket.descriptor, reading))
            finally:
                os.close(ticket.descriptor)
                os.close(reading)
            # Only now: a pipe holds 64 KiB, and takes more only while the supervisor reads. If that has died, the next
            # command that reads the run finds out.
            with suppress(BrokenPipeError):
                pipe.write(json.dumps(hidden).encode())
                pipe.flush()

    def target(self, name: str) -> LocalTarget:
        """Raises SettingsError."""
        from amlctl.config.compute_file import read_compute_files  # here, since it reads YAML
        from amlctl.core.compute import LocalTarget

        target = read_compute_files(self.project).find(name) or LocalTarget(name)
        if not isinstance(target, LocalTarget):
            raise SettingsError(
                f"compute target {name} is not on this machine: its type is {target.type}",
                hint="choose one of type local, or another workspace",
            )
        return target


def _spawn(
    paths: RunPaths, settings: SupervisorSettings, variables: Mapping[str, str], descriptors: Sequence[int]
) -> None:
    command = [sys.executable, "-m", SUPERVISOR_MODULE, paths.run, settings.to_text()]
    with open_regular(paths.log, "ab") as log:
        subprocess.run(
            command,
            cwd=paths.folder,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=tuple(descriptors),
            start_new_session=True,
            check=True,
        )
