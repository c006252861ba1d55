"""What is told of a run on one line each: its phases, and what its script has used.

sync 2.1 s › env cached › data 9.0 s › run 12 min 3 s › save 0.4 s
CPU 340% · peak memory 1.2 GB · GPU 93% · peak GPU memory 10.1 GB
"""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime

from amlctl.cli.render.tables import duration
from amlctl.core.message import size
from amlctl.core.phases import CACHED, Phase, Span, timeline
from amlctl.core.run import RunRecord

SEPARATOR = " › "
_LEAST_WIDTH = 20
_UNBROKEN = "\N{NO-BREAK SPACE}"


def phases_text(record: RunRecord, width: int) -> str:
    """In lines of at most `width` cells, broken between phases; empty for a run that has not begun."""
    phases = [phase_text(span).replace(" ", _UNBROKEN) for span in timeline(record, datetime.now(UTC))]
    return textwrap.fill(SEPARATOR.join(phases), max(width, _LEAST_WIDTH)).replace(_UNBROKEN, " ")


def phase_text(span: Span) -> str:
    """Without a time where there was nothing to do."""
    return f"{span.name} {CACHED if span.note == CACHED else duration(span.seconds)}"


def resources_text(record: RunRecord) -> str:
    """Empty for a run whose script has not ended, or never began."""
    found = record.resources
    parts = [
        f"CPU {found['processors']:.0%}" if "processors" in found else "",
        f"peak memory {size(int(found['peak_memory_bytes']))}" if found.get("peak_memory_bytes") else "",
        f"GPU {found['gpu']:.0%}" if "gpu" in found else "",
        f"peak GPU memory {size(int(found['peak_gpu_memory_bytes']))}" if "peak_gpu_memory_bytes" in found else "",
    ]
    text = " · ".join(part for part in parts if part)
    has_run = record.is_final and any(phase["name"] == Phase.RUN for phase in record.phases)
    return text or ("not recorded" if has_run else "")
