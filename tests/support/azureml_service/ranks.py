"""The processes of a job, and the variables that tell each of them its place."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rank:
    """`log` is the name of its log, `node` the index of the node that it runs on."""

    node: int
    log: str
    variables: Mapping[str, str]


def ranks_of(distribution: Mapping[str, Any] | None, instance_count: int, log_digits: int = 1) -> list[Rank]:
    """One process a node without a distribution."""
    asked = distribution or {}
    kind = str(asked.get("distributionType") or "").lower()
    if kind == "tensorflow":
        return _tensorflow(
            int(asked.get("workerCount") or instance_count), int(asked.get("parameterServerCount") or 0), instance_count
        )
    each = int(asked.get("processCountPerInstance") or 1) if kind else 1
    world = each * instance_count
    port = _free_ports(1)[0]
    ranks = []
    for rank in range(world):
        node, local = divmod(rank, each)
        variables: dict[str, str] = {}
        if kind == "pytorch":
            variables = {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "RANK": str(rank),
                "LOCAL_RANK": str(local),
                "WORLD_SIZE": str(world),
                "NODE_RANK": str(node),
            }
        elif kind == "mpi":
            variables = {
                "OMPI_COMM_WORLD_RANK": str(rank),
                "OMPI_COMM_WORLD_SIZE": str(world),
                "OMPI_COMM_WORLD_LOCAL_RANK": str(local),
                "OMPI_COMM_WORLD_LOCAL_SIZE": str(each),
                "AZ_BATCH_MASTER_NODE": f"127.0.0.1:{port}",
            }
        log = f"std_log_process_{rank:0{log_digits}}.txt" if kind else "std_log.txt"
        ranks.append(Rank(node, log, variables))
    return ranks


def _tensorflow(workers: int, servers: int, instance_count: int) -> list[Rank]:
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(workers + servers)]
    cluster = {"worker": addresses[:workers], **({"ps": addresses[workers:]} if servers else {})}
    tasks = [("worker", index) for index in range(workers)] + [("ps", index) for index in range(servers)]
    return [
        Rank(
            number % instance_count,
            f"std_log_node_{index:02}_{kind}.txt",
            {
                "TF_CONFIG": json.dumps(
                    {"cluster": cluster, "task": {"type": kind, "index": index}, "environment": "cloud"}
                )
            },
        )
        for number, (kind, index) in enumerate(tasks)
    ]


def _free_ports(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()
