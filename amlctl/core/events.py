"""What happens, as facts for any observer: terminal, plain lines, tests.

A sink is thread-safe, fast and never raises. Counts are absolute, never increments, since a retry starts
over. Send one as often as something happens: throttling, rates and words belong to the renderer. Events are tuples:
tell them apart by type, not by `==`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, Union

if TYPE_CHECKING:
    from amlctl.core.metrics import Goal
    from amlctl.core.run import RunRecord
    from amlctl.core.sweep import SweepRow


class Stage(Enum):
    """The long stages of a command, in the order in which a sync goes through them."""

    SCAN = "scan"
    HASH = "hash"
    SEND = "send"
    RECEIVE = "receive"
    VERIFY = "verify"


class StageProgress(NamedTuple):
    """How far a stage is. Totals are None while unknown; `is_done` comes exactly once, as its last event.

    Bytes are those that have reached the service, or were read from it. `values` are files and packs, each of which
    takes requests of its own.
    """

    stage: Stage
    subject: str
    done_files: int
    done_bytes: int
    total_files: Optional[int] = None
    total_bytes: Optional[int] = None
    is_done: bool = False
    done_values: int = 0
    total_values: int = 0


class Note(NamedTuple):
    """A sentence for the user about normal progress."""

    message: str


class Warned(NamedTuple):
    """A sentence for the user about something that may not be what they meant."""

    message: str


class ToolSaid(NamedTuple):
    """A line of a tool that takes its time; only the latest one is of interest."""

    line: str


NOTEWORTHY_S = 2.0
"""Seconds after which a user wants to know what a command waits for."""


class Retried(NamedTuple):
    """A request to the service `name` failed for `reason` after `took_s`, and is retried in `wait_s`.

    `attempt` counts retries from 1 to `most`.
    """

    name: str
    attempt: int
    most: int
    reason: str
    wait_s: float
    took_s: float

    @property
    def is_noteworthy(self) -> bool:
        """Whether it takes long enough for a user to notice."""
        return self.took_s + self.wait_s >= NOTEWORTHY_S


class Unanswered(NamedTuple):
    """The service `name` has not answered for `waited_s`; the attempt ends after `limit_s`."""

    name: str
    waited_s: float
    limit_s: float


class SnapshotCommitted(NamedTuple):
    """HEAD of a dataset now names this snapshot."""

    dataset: str
    snapshot: str


class RunCreated(NamedTuple):
    """The run exists and is recorded; whatever fails from here on can be looked up by its id."""

    run: str


class RunStateChanged(NamedTuple):
    """A run reached a state; `reason` is for people and may be empty."""

    run: str
    state: str
    reason: str = ""


class RunPageKnown(NamedTuple):
    """An active run that is followed has a page in Studio."""

    run: str
    url: str


class Usage(NamedTuple):
    """What the processes of a run use: processors (1.0 is one of them), bytes, and parts of 1 of its GPUs; None where
    that is not known."""

    processors: Optional[float] = None
    memory_bytes: Optional[int] = None
    gpu: Optional[float] = None
    gpu_memory_bytes: Optional[int] = None


class RunWatched(NamedTuple):
    """How an active run stands, for those who watch it: its record, last values of metrics, and seconds since it
    has saved outputs, if it has any."""

    record: RunRecord
    metrics: Mapping[str, Any] = {}
    usage: Usage = Usage()
    saved_s: Optional[float] = None


class SweepWatched(NamedTuple):
    """How a sweep stands that is followed: its record, a row for each run, and the metric to compare them by."""

    record: RunRecord
    rows: Sequence[SweepRow]
    goal: Optional[Goal] = None


class LogText(NamedTuple):
    """A piece of a run's log exactly as written, carriage returns included; may end inside a line."""

    run: str
    text: str


Event = Union[
    StageProgress,
    Note,
    Warned,
    ToolSaid,
    Retried,
    Unanswered,
    SnapshotCommitted,
    RunCreated,
    RunStateChanged,
    RunPageKnown,
    RunWatched,
    SweepWatched,
    LogText,
]
EventSink = Callable[[Event], None]


def null_sink(event: Event) -> None:
    """Discards all events."""
