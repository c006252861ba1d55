"""Measure amlctl against its peers: `python benchmarks/run.py [NAME…]` with the Python that amlctl is installed in.

Prints a table for each benchmark. A run of all of them at full scale also writes benchmarks/results/local.md.
`python benchmarks/run.py transfer` measures transfers to Blob Storage over simulated links, `… scale` a million files
and one file of 10 GB, `… azureml` Azure ML beside its own SDK (`--help` says how).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import report
from cases import BENCHMARKS
from machine import machine, versions
from measure import CommandFailed
from result import Result
from sandbox import Sandbox, amlctl, working_folder

_RESULTS = Path(__file__).with_name("results") / "local.md"


def main() -> int:
    if sys.argv[1:2] == ["transfer"]:
        from cases import transfer  # needs the packages of the tests

        return transfer.main(sys.argv[2:])
    if sys.argv[1:2] == ["scale"]:
        from cases import scale

        return scale.main(sys.argv[2:])
    if sys.argv[1:2] == ["azureml"]:
        from cases import azureml

        return azureml.main(sys.argv[2:])
    options = _options()
    names = options.names or list(BENCHMARKS)
    results: list[Result] = []
    load_before = os.getloadavg()[0]
    for name in names:
        # A folder for each benchmark: what one leaves on the disk is gone before the next begins.
        with working_folder("benchmark", options.work) as folder:
            sandbox = Sandbox(folder, options.repetitions, options.scale, _teller(name))
            about_machine = machine(sandbox.folder)
            sandbox.tell("makes its data")
            try:
                results.append(BENCHMARKS[name](sandbox))
            except CommandFailed as error:
                print(f"{name}: {error}", file=sys.stderr)
                return 1
        print(report.text(results[-1]), end="\n\n", flush=True)
    if set(names) == set(BENCHMARKS) and options.scale == 1:
        load = f"{load_before:.1f} before and {os.getloadavg()[0]:.1f} after"
        _RESULTS.write_text(report.markdown(results, _about(about_machine, load, options.repetitions)))
        print(f"written: {_RESULTS}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where the data is made (3 GB); default: temporary")
    parser.add_argument("--repetitions", type=int, default=7, metavar="N", help="runs of each command; default: 7")
    parser.add_argument("--scale", type=float, default=1.0, metavar="F", help="shrink the data, to try this out")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    return options


def _teller(name: str) -> Callable[[str], None]:
    return lambda text: print(f"{name}: {text}", file=sys.stderr, flush=True)


def _about(about_machine: str, load: str, repetitions: int) -> Sequence[str]:
    started = "the installed command" if len(amlctl()) == 1 else "python -m amlctl"
    return [
        "Written by `python benchmarks/run.py`; a later run replaces it.",
        "",
        f"- Day: {datetime.now(UTC).date().isoformat()}. Machine: {about_machine}. Load average {load}.",
        f"- Versions: {versions()}.",
        f"- amlctl is {started}. All are whole processes, run in turn (A B A B …), {repetitions} times or more after",
        "  one round that is not counted; page cache warm; targets deleted and buffers written out (`sync`) before",
        "  each run. Trust the ratios of the medians, not the seconds.",
        "- Memory is that of the largest process of a command; `<` marks what is too small to be seen.",
        "- Of the writers only restic waits for the disk (fsync); cp, tar and amlctl leave that to the system.",
    ]


if __name__ == "__main__":
    sys.exit(main())
