"""What whoever starts a run tells the supervisor of it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

SUPERVISOR_MODULE = "amlctl.workspaces.local.supervisor_program"


@dataclass(frozen=True)
class LocalTiming:
    """Seconds: between two saves of outputs and log; from SIGTERM to SIGKILL; between two looks at the queue,
    at a request to cancel and at the timeout."""

    save_interval_s: float = 15.0
    grace_s: float = 30.0
    poll_s: float = 0.1


DEFAULT_TIMING = LocalTiming()


@dataclass(frozen=True)
class SupervisorSettings:
    """Folders are absolute; `ticket` is the path of a held ticket.

    Through `variables_descriptor`, the reading end of a pipe, come the variables that must not be in the environment of
    a process, where every program of the user can read them: JSON, an object of texts.
    `gpus` of those that the machine has are shared among the slots; None: all.
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
