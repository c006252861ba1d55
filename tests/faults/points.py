"""What `every_system_error` and `every_azure_reply` share: which of all points are tried, and what failed at them."""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol, TypeVar


class Point(Protocol):
    """What goes wrong, and where; its text has the options that try it alone."""

    @property
    def command(self) -> str: ...


_Point = TypeVar("_Point", bound=Point)
_LINES = 16
"""Of a failure that are shown."""


def parser(commands: Collection[str]) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser()
    made.add_argument("--sample", type=int, default=0, help="so many points of each command; default: all")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--only", choices=commands)
    return made


def tried(points: Sequence[_Point], options: Any, failure: Callable[[_Point], str], codes: Counter[Any]) -> int:
    """The exit code. `failure` says what is wrong at a point, if anything is, and counts in `codes`."""
    if options.sample:
        choice = random.Random(options.seed)
        by_command = [
            [p for p in points if p.command == command] for command in dict.fromkeys(p.command for p in points)
        ]
        points = [p for of in by_command for p in choice.sample(of, min(options.sample, len(of)))]
    done = failed = 0
    try:
        for point in points:
            if what := failure(point):
                failed += 1
                sys.stdout.write(f"{point}\n    " + "\n    ".join(what.splitlines()[:_LINES]) + "\n")
                sys.stdout.flush()
            done += 1
    except KeyboardInterrupt:
        sys.stdout.write(f"interrupted at {points[done]}\n")
    tried_points = f"{done} of {len(points)} points" if done < len(points) else f"{done} points"
    sys.stdout.write(f"{tried_points}, {failed} failed (seed {options.seed}); exit codes {dict(codes)}\n")
    return 1 if failed or done < len(points) else 0
