"""One GPU a slot, where this machine has NVIDIA's."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence

VISIBLE = "CUDA_VISIBLE_DEVICES"
_QUERY = ("--query-gpu=index", "--format=csv,noheader")
_LIMIT_S = 20.0
"""A driver that hangs must not keep a run from starting."""


def list_gpus(variables: Mapping[str, str]) -> Sequence[str]:
    """What CUDA may see, in order: the user's own choice, else what `nvidia-smi` lists; empty without a GPU."""
    if VISIBLE in variables:
        return [name.strip() for name in variables[VISIBLE].split(",") if name.strip()]
    tool = shutil.which("nvidia-smi", path=variables.get("PATH"))
    if tool is None:
        return []
    try:
        result = subprocess.run(
            [tool, *_QUERY], capture_output=True, text=True, timeout=_LIMIT_S, check=True, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in result.stdout.splitlines() if line.strip()]


def gpu_variables(gpus: Sequence[str], slot: int) -> dict[str, str]:
    """What the run in `slot` gets; where there are more slots than GPUs they share them in turn."""
    return {VISIBLE: gpus[slot % len(gpus)]} if gpus else {}
