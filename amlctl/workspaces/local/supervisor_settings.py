"""What `start` tells the supervisor that it starts."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

SUPERVISOR_MODULE = "amlctl.workspaces.local.supervisor"


@dataclass(frozen=True)
class SupervisorSettings:
    """What the caller of `start` decided. Folders are absolute; `ticket` is the path of a held ticket."""

    state_dir: str
    store: str
    environments_dir: str
    slots: int
    ticket: str
    ticket_descriptor: int
    save_interval_s: float
    grace_s: float
    poll_s: float

    def to_text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> SupervisorSettings:
        return cls(**json.loads(text))
