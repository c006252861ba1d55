"""States of runs."""

from __future__ import annotations

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
