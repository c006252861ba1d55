"""What a run has used, on one line: `CPU 340% · peak memory 1.2 GB · GPU 93% · peak GPU memory 10.1 GB`."""

from __future__ import annotations

from amlctl.core.message import size
from amlctl.core.phases import Phase
from amlctl.core.run import RunRecord

NOT_RECORDED = "not recorded"


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
    return text or (NOT_RECORDED if has_run else "")
