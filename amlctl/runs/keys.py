"""Keys in the store of a run's files, `runs/<run id>/…`, and of code snapshots, `code/<code id>/…`.

The node of rank 0 writes the names that all readers know; the other nodes of a distributed run write beside them, with
`.rank-<N>` in the name, so that no two nodes ever write the same key. What the user's script names is below `outputs/`
and `outputs.rank-<N>/` only: it cannot collide with a name of ours.
"""

from __future__ import annotations


def code_prefix(code: str) -> str:
    return f"code/{code}/"


def code_index_key(code: str) -> str:
    return f"code/{code}.json"


def run_prefix(run: str) -> str:
    return f"runs/{run}/"


def record_key(run: str) -> str:
    return f"runs/{run}/record.json"


def log_key(run: str, name: str) -> str:
    """The log of one process (`core.distribution.log_names`) with its progress bars collapsed."""
    return f"runs/{run}/logs/{name}"


def failure_key(run: str) -> str:
    """JSON {"kind", "message", "hint"}: why the runtime itself could not start the script or keep its results."""
    return f"runs/{run}/failure.json"


def script_ends_prefix(run: str) -> str:
    return f"runs/{run}/ends/"


def script_end_key(run: str, rank: int) -> str:
    """JSON {"exit_code", "ended_ns"} of a process whose script has failed by itself; `rank` counts all processes."""
    return f"{script_ends_prefix(run)}{rank}.json"


def published_key(run: str) -> str:
    """JSON {dataset: {"snapshot", "manifest_key"}}: what the run has produced; HEAD does not name it yet."""
    return f"runs/{run}/published.json"


def outputs_prefix(run: str, rank: int = 0) -> str:
    return f"runs/{run}/outputs{_suffix(rank)}/"


def first_outputs_prefix(run: str, rank: int = 0) -> str:
    """The same for a list of format 1, whose further nodes wrote among the outputs of the first one."""
    return f"runs/{run}/outputs/" + (f"rank-{rank}/" if rank else "")


def outputs_index_key(run: str, rank: int = 0) -> str:
    return f"runs/{run}/outputs{_suffix(rank)}.json"


def attempt_key(run: str, rank: int = 0) -> str:
    """JSON {"attempt"}: how often this node has been started for the run, from 1."""
    return f"runs/{run}/attempt{_suffix(rank)}.json"


def _suffix(rank: int) -> str:
    return f".rank-{rank}" if rank else ""
