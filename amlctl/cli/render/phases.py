"""The phases of a run on one line: `sync 2.1 s › env cached › data 9.0 s › run 12 min 3 s › save 0.4 s`."""

from __future__ import annotations

from datetime import UTC, datetime

from amlctl.cli.render.tables import duration
from amlctl.core.phases import CACHED, Span, timeline
from amlctl.core.run import RunRecord

SEPARATOR = " › "


def phases_text(record: RunRecord) -> str:
    """Empty for a run that has not begun."""
    return SEPARATOR.join(map(phase_text, timeline(record, datetime.now(UTC))))


def phase_text(span: Span) -> str:
    """Without a time where there was nothing to do."""
    return f"{span.name} {CACHED if span.note == CACHED else duration(span.seconds)}"
