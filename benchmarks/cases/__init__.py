"""The benchmarks, one a file: each makes its data in the sandbox and hands back a Result."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from result import Result
from sandbox import Sandbox

from cases import cold, noop, pull, rerun, runs, start

BENCHMARKS: Mapping[str, Callable[[Sandbox], Result]] = {
    "noop": noop.measure,
    "cold": cold.measure,
    "pull": pull.measure,
    "help": start.measure,
    "runs": runs.measure,
    "rerun": rerun.measure,
}
