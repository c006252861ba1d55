"""Try many orders; or one of them again, with `--replay`."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from tests.simulator import virtual
from tests.simulator.explore import Tally, explore
from tests.simulator.order import Stage, parse_order
from tests.simulator.scenarios import SCENARIOS
from tests.simulator.world import memory_folder

Job = tuple[str, int, int, float, int]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--orders", type=int, default=100_000, help="over all scenarios")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6 * 3600, help="at most so long")
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="only this one")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--failures", type=int, default=3, help="of each scenario, then it is given up")
    parser.add_argument("--replay", metavar="ORDER", help="run one order and print its calls")
    wanted = parser.parse_args(arguments)
    if wanted.replay:
        return _replay(wanted.replay)
    names = wanted.scenario or list(SCENARIOS)
    ends = time.monotonic() + wanted.seconds
    share = -(-wanted.orders // len(names))
    jobs: list[Job] = [
        (name, share, wanted.seed, wanted.seconds * wanted.jobs / len(names), wanted.failures) for name in names
    ]
    started = time.monotonic()
    total = Tally()
    tallies = map(_explored, jobs) if wanted.jobs == 1 else ProcessPoolExecutor(wanted.jobs).map(_explored, jobs)
    distinct = 0
    for name, tally in zip(names, tallies, strict=True):
        _print(name, tally)
        total.orders += tally.orders
        total.calls += tally.calls
        total.faults += tally.faults
        total.refusals += tally.refusals
        total.failures += tally.failures
        total.seconds += tally.seconds
        distinct += tally.distinct
        if time.monotonic() > ends:
            break
    passed = time.monotonic() - started
    print(
        f"\n{total.orders} orders ({distinct} distinct), {total.calls} calls, "
        f"faults: {_counted(total.faults)}; failed: {len(total.failures)}; "
        f"{passed:.0f} s, {total.seconds:.0f} s of processor, {_rate(total)} orders a second"
    )
    print("lost: 0" if not total.failures else "see the replay lines above")
    return bool(total.failures)


def _explored(job: Job) -> Tally:
    name, orders, seed, seconds, failures = job
    base = memory_folder()
    ends = time.monotonic() + seconds
    try:
        with virtual.simulated():
            return explore(
                SCENARIOS[name], base, orders, seed, stop_at=lambda: time.monotonic() > ends, most_failures=failures
            )
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _replay(text: str) -> int:
    order = parse_order(text)
    base = memory_folder()
    try:
        with virtual.simulated():
            outcome = Stage(SCENARIOS[order.scenario], base).run(order)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    for number, step in enumerate(outcome.trace):
        print(f"{number:4} {step.actor} {step.method:6} {step.key}")
    for name, reported in outcome.refusals.items():
        print(f"{name} ended with {reported}")
    print(outcome.problem or "all is as it must be")
    return bool(outcome.problem)


def _print(name: str, tally: Tally) -> None:
    print(
        f"{name:28} {tally.orders:6} orders {tally.distinct:6} distinct {_rate(tally):>5}/s  "
        f"{'FAILED' if tally.failures else 'right':6}  refusals: {_counted(tally.refusals)}",
        flush=True,
    )
    for outcome in tally.failures:
        print(f"    {outcome.problem}\n    python -m tests.simulator --replay '{outcome.order}'", flush=True)


def _rate(tally: Tally) -> str:
    return f"{tally.orders / max(tally.seconds, 1e-9):.0f}"


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items())) or "none"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
