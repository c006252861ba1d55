"""One GPU a process, where this machine has NVIDIA's: the slots share them, and a run uses of its slot's share."""

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


def gpu_variables(gpus: Sequence[str], slot: int, slots: int, *, node: int = 0, processes: int = 1) -> dict[str, str]:
    """What every process on `node` of the run in `slot` sees: a GPU for each, which it chooses by its local rank.

    Where there are more slots than GPUs they share them in turn; so do the processes of one run.
    """
    if not gpus:
        return {}
    share = gpus[slot::slots] or [gpus[slot % len(gpus)]]
    wanted = [share[number % len(share)] for number in range(node * processes, (node + 1) * processes)]
    return {VISIBLE: ",".join(dict.fromkeys(wanted))}
