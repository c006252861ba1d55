"""The phases of a run, from the first byte that is sent for it to its last save, with their times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from enum import Enum
from typing import Any, NamedTuple, Optional

from amlctl.core.run import RunRecord
from amlctl.core.run_schema import is_time, parse_time
from amlctl.core.run_state import FINAL_STATES, RunState


class Phase(str, Enum):
    """In the order in which a run goes through them; it may skip some."""

    SYNC = "sync"
    CODE = "code"
    QUEUE = "queue"
    NODES = "nodes"
    ENVIRONMENT = "env"
    DATA = "data"
    RUN = "run"
    SAVE = "save"

    def __str__(self) -> str:
        return self.value


CACHED = "cached"
"""Note of a phase that found everything there."""

_OF_STATE = {
    RunState.QUEUED: Phase.QUEUE,
    RunState.PROVISIONING: Phase.NODES,
    RunState.PREPARING: Phase.ENVIRONMENT,
    RunState.RUNNING: Phase.RUN,
    RunState.FINALIZING: Phase.SAVE,
}
"""What is known of a run whose phases were not recorded."""


class Span(NamedTuple):
    """A phase as it was, or as it is so far."""

    name: str
    seconds: float
    note: str = ""
    is_open: bool = False


def begun(phase: Phase, now: datetime, note: str = "") -> dict[str, str]:
    """As a record has it."""
    at = now.astimezone(timezone.utc).isoformat(timespec="milliseconds")
    return {"name": phase.value, "at": at, **({"note": note} if note else {})}


def began(record: RunRecord, phase: Phase, now: datetime, note: str = "") -> None:
    """From now on the run is in this phase. A phase begins once; after the end of the run none does."""
    if not record.is_final and all(one["name"] != phase for one in record.phases):
        record.phases.append(begun(phase, now, note))


def begun_at(times: Mapping[str, Any]) -> Mapping[Phase, datetime]:
    """From the times that a node has kept, by phase; what is not one is left out."""
    return {phase: parse_time(times[phase]) for phase in Phase if is_time(times.get(phase))}


def timeline(record: RunRecord, now: datetime) -> Sequence[Span]:
    """Its phases in order; the last one of an active run lasts until `now`."""
    found = {one["name"]: (parse_time(one["at"]), one.get("note", "")) for one in record.phases}
    for state, phase in _OF_STATE.items():
        if state in record.times:
            found.setdefault(phase.value, (parse_time(record.times[state]), ""))
    end = next((parse_time(at) for state, at in record.times.items() if state in FINAL_STATES), None)
    ordered = sorted(found.items(), key=lambda one: one[1][0])
    ends = [at for _, (at, _) in ordered[1:]] + [end or now]
    return [
        Span(name, max(0.0, (until - at).total_seconds()), note, is_open=end is None and number == len(ordered))
        for number, ((name, (at, note)), until) in enumerate(zip(ordered, ends), 1)
    ]


def script_s(record: RunRecord) -> Optional[float]:
    """Seconds that the script took; None while it runs, or where it never did."""
    if not record.is_final:
        return None
    return next((span.seconds for span in timeline(record, datetime.now(timezone.utc)) if span.name == Phase.RUN), None)
