"""Runs of several processes: how many there are, and by which variables they find each other.

The variables are those that Azure ML sets for the three kinds of its jobs, so that a script that works on this
machine works there too. Ranks count from 0, node by node.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional

DISTRIBUTIONS = ("pytorch", "mpi", "tensorflow")


@dataclass(frozen=True)
class Rank:
    """One process of a run: its number in the whole run, its node, and its number on that node."""

    number: int
    node: int
    local: int


@dataclass(frozen=True)
class Distribution:
    """`processes` on each of `instances` nodes; `kind` is one of `DISTRIBUTIONS`, None for a plain single process."""

    kind: Optional[str] = None
    processes: int = 1
    instances: int = 1

    @property
    def world_size(self) -> int:
        return self.processes * self.instances

    @property
    def ranks(self) -> list[Rank]:
        return [Rank(number, *divmod(number, self.processes)) for number in range(self.world_size)]

    @property
    def text(self) -> str:
        """For people; empty for a plain single process."""
        if self.kind is None:
            return ""
        processes = f"{self.processes} process{'es' if self.processes > 1 else ''}"
        return f"{self.kind}, {processes}" + (f" on each of {self.instances} instances" if self.instances > 1 else "")

    def ports_wanted(self) -> int:
        """How many free ports `rank_variables` needs: TensorFlow's workers listen one and all."""
        return {None: 0, "tensorflow": self.world_size}.get(self.kind, 1)


def rank_variables(distribution: Distribution, rank: Rank, host: str, ports: Sequence[int]) -> Mapping[str, str]:
    """What the process of `rank` is told; all of a run are given the same `host` and `ports`."""
    size = distribution.world_size
    if distribution.kind == "pytorch":
        return {
            "MASTER_ADDR": host,
            "MASTER_PORT": str(ports[0]),
            "RANK": str(rank.number),
            "WORLD_SIZE": str(size),
            "LOCAL_RANK": str(rank.local),
            "LOCAL_WORLD_SIZE": str(distribution.processes),
            "NODE_RANK": str(rank.node),
        }
    if distribution.kind == "mpi":
        return {
            "OMPI_COMM_WORLD_RANK": str(rank.number),
            "OMPI_COMM_WORLD_SIZE": str(size),
            "OMPI_COMM_WORLD_LOCAL_RANK": str(rank.local),
            "OMPI_COMM_WORLD_LOCAL_SIZE": str(distribution.processes),
            "AZ_BATCH_MASTER_NODE": f"{host}:{ports[0]}",
        }
    if distribution.kind == "tensorflow":
        cluster = {"worker": [f"{host}:{port}" for port in ports]}
        task = {"type": "worker", "index": rank.number}
        return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task, "environment": "cloud"})}
    return {}


def log_names(world_size: int) -> list[str]:
    """Names of a run's logs as Azure ML gives them, rank 0 first: one for every process."""
    if world_size == 1:
        return ["std_log.txt"]
    return [f"std_log_process_{number}.txt" for number in range(world_size)]
