"""The state of a run, and its phases on one line: `sync 2.1 s › env cached › data 9.0 s › run 12 min 3 s`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from amlctl.cli.render.tables import Styled, bad, duration, good, highlight, warning
from amlctl.core.phases import CACHED, Span, timeline
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState

SEPARATOR = " › "


def phases_text(record: RunRecord) -> str:
    """Empty for a run that has not begun."""
    return SEPARATOR.join(map(phase_text, timeline(record, datetime.now(UTC))))


def phase_text(span: Span) -> str:
    """Without a time where there was nothing to do."""
    return f"{span.name} {CACHED if span.note == CACHED else duration(span.seconds)}"


def state_cell(state: str) -> Styled:
    """The name of a run's state in its color."""
    styles: dict[str, Callable[[str], Styled]] = {
        RunState.COMPLETED: good,
        RunState.FAILED: bad,
        RunState.CANCELED: warning,
        RunState.RUNNING: highlight,
    }
    return styles[state](state) if state in styles else Styled(state, "")
