"""Which node of a run this is, and which process on it, from what the launchers tell.

Azure ML and torchrun set NODE_RANK (GROUP_RANK) and LOCAL_RANK, Open MPI its OMPI_… variables, TensorFlow's
TF_CONFIG gives the task's index (one process a node). A run without any of them has one node and one process.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class NodeRank:
    """`node` counts nodes, `local` the processes on one node, both from 0."""

    node: int = 0
    local: int = 0

    @property
    def is_first_process(self) -> bool:
        """Whether this process does what is done once per node."""
        return self.local == 0


def node_rank(variables: Mapping[str, str]) -> NodeRank:
    local = _number(variables, "LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK")
    node = _number(variables, "NODE_RANK", "GROUP_RANK")
    if node is None:
        per_node = _number(variables, "LOCAL_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE")
        rank = _number(variables, "RANK", "OMPI_COMM_WORLD_RANK")
        node = rank // (per_node or 1) if rank is not None else _tensorflow_index(variables)
    return NodeRank(node, local or 0)


def _number(variables: Mapping[str, str], *names: str) -> int | None:
    for name in names:
        if variables.get(name, "").isdigit():
            return int(variables[name])
    return None


def _tensorflow_index(variables: Mapping[str, str]) -> int:
    try:
        task = json.loads(variables.get("TF_CONFIG", "{}")).get("task", {})
        index = int(task.get("index", 0))
    except (ValueError, TypeError, AttributeError):
        return 0
    # Workers are counted after the chief, which has index 0 of its own kind.
    return index + 1 if task.get("type") == "worker" and "chief" in variables.get("TF_CONFIG", "") else index
