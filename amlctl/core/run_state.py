"""States of runs, and how a script has ended."""

from __future__ import annotations

import signal
from enum import Enum


class RunState(str, Enum):
    """States as Azure ML names them (REST description 2024-10-01, JobStatus)."""

    NOT_STARTED = "NotStarted"
    STARTING = "Starting"
    PROVISIONING = "Provisioning"
    PREPARING = "Preparing"
    QUEUED = "Queued"
    RUNNING = "Running"
    FINALIZING = "Finalizing"
    CANCEL_REQUESTED = "CancelRequested"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELED = "Canceled"
    NOT_RESPONDING = "NotResponding"
    PAUSED = "Paused"

    def __str__(self) -> str:
        return self.value


FINAL_STATES = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELED})
"""A word that is not listed here means: still going, show it as it is."""


def is_final(status: str) -> bool:
    return status in FINAL_STATES


def script_end(code: int, script: str = "the script", *, machine: str = "machine") -> str:
    """What an exit code says: 128 + N stands for signal N."""
    killer = signal_name(code - 128, machine)
    return f"{script} was killed by {killer}" if killer else f"{script} ended with exit code {code}"


def signal_name(number: int, machine: str = "machine") -> str:
    """`signal 9 (SIGKILL)`; empty for a number that is not a signal."""
    try:
        name = f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return ""
    return name + (f"; perhaps the {machine} ran out of memory" if number == signal.SIGKILL else "")
