"""Hands a run over: its place in the queue, and the supervisor that looks after it from then on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from amlctl.config.compute_file import read_compute_files
from amlctl.core.compute import LocalTarget
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState
from amlctl.core.secret_names import is_login_variable
from amlctl.errors import SettingsError
from amlctl.localfs.project import Project
from amlctl.stores.contract import Store
from amlctl.workspaces.local import detach, records
from amlctl.workspaces.local.ending import Clock
from amlctl.workspaces.local.places import RunPlaces, queue_folder
from amlctl.workspaces.local.slots import SlotQueue
from amlctl.workspaces.local.supervisor_settings import SUPERVISOR_MODULE, LocalTiming, SupervisorSettings


@dataclass(frozen=True)
class Starter:
    """`variables` are what every run inherits."""

    project: Project
    store: Store
    environments_dir: Path
    variables: Mapping[str, str]
    timing: LocalTiming
    clock: Clock

    def start(self, places: RunPlaces, record: RunRecord, secrets: Mapping[str, str], lock: int) -> None:
        """Record the run as Queued and start its supervisor, which takes the held lock of the run over.

        Raises SettingsError (compute target cannot be used), RightsError, ServiceUnavailable.
        """
        target = self._target(record.spec.compute)
        record.reached(RunState.QUEUED, self.clock())
        trouble = records.save(places, self.store, record)
        if trouble is not None:
            raise trouble
        ticket = SlotQueue(queue_folder(self.project.state_dir, record.spec.compute)).take_ticket(record.run)
        reading, writing = os.pipe()
        settings = SupervisorSettings(
            state_dir=str(self.project.state_dir),
            store=self.store.url,
            environments_dir=str(self.environments_dir),
            slots=target.slots,
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
                _spawn(places, settings, plain, (lock, ticket.descriptor, reading))
            finally:
                os.close(ticket.descriptor)
                os.close(reading)
            # Only now: a pipe holds 64 KiB, and takes more only while the supervisor reads. If that has died, the next
            # command that looks at the run finds out.
            with suppress(BrokenPipeError):
                pipe.write(json.dumps(hidden).encode())
                pipe.flush()

    def _target(self, name: str) -> LocalTarget:
        target = read_compute_files(self.project).find(name) or LocalTarget(name)
        if not isinstance(target, LocalTarget):
            raise SettingsError(
                f"compute target {name} is not on this machine: its type is {target.type}",
                hint="choose one of type local, or another workspace",
            )
        return target


def _spawn(
    places: RunPlaces, settings: SupervisorSettings, variables: Mapping[str, str], descriptors: Sequence[int]
) -> None:
    detached = [sys.executable, "-I", "-S", str(detach.__file__), sys.executable]
    command = [*detached, "-m", SUPERVISOR_MODULE, places.run, settings.to_text()]
    with places.log.open("ab") as log:
        subprocess.run(
            command,
            cwd=places.folder,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=tuple(descriptors),
            start_new_session=True,
            check=True,
        )
