"""Which processes a run shall consist of, from what was typed and from the run that is repeated."""

from __future__ import annotations

from amlctl.core.distribution import DISTRIBUTIONS, Distribution
from amlctl.core.run import RunRecord
from amlctl.core.run_schema import MAX_PROCESSES
from amlctl.errors import UsageError

DEFAULT_KIND = "pytorch"
"""What several processes are where nobody says: the variables that most launchers and libraries know."""


def choose_distribution(
    kind: str | None, processes: int | None, instances: int | None, earlier: RunRecord | None
) -> Distribution:
    """None means: not typed. Raises UsageError."""
    if kind is not None and kind not in DISTRIBUTIONS:
        raise UsageError(f"--distribution {kind!r} is unknown", hint=f"one of {', '.join(DISTRIBUTIONS)}")
    for option, number in (("--processes", processes), ("--instances", instances)):
        if number is not None and number < 1:
            raise UsageError(f"{option} {number}: a run has at least one", hint=f"for example {option} 2")
    before = earlier.spec.layout if earlier is not None else Distribution()
    kind = kind or before.kind
    processes = processes or before.processes
    instances = instances or before.instances
    if processes * instances > MAX_PROCESSES:
        raise UsageError(
            f"{processes * instances:,} processes are too many: a run has at most {MAX_PROCESSES:,}",
            hint="choose fewer --processes or --instances",
        )
    if kind is None and processes * instances > 1:
        kind = DEFAULT_KIND
    return Distribution(kind, processes, instances)
