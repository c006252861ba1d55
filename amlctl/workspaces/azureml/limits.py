"""What Azure ML does not take of a run, as far as that is known before anything is sent.

Refused here is what the service refuses: some names of experiments, and sweep jobs that are too large. Limits that are
only documented are warnings, since the service takes more of some things, such as properties of 550,000 characters:
https://learn.microsoft.com/azure/machine-learning/resource-limits-capacity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from amlctl.core.events import EventSink, Note, Warned
from amlctl.core.run import RunSpec
from amlctl.core.run_id import slug
from amlctl.core.sweep import Sweep
from amlctl.errors import UsageError

MOST_AT_ONCE = 100
"""Trials of a sweep job, by https://learn.microsoft.com/azure/machine-learning/how-to-tune-hyperparameters."""
_MOST_TRIALS = 1000
_EXPERIMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,255}")
_MOST_TAGS = 50
_LONGEST_TAG_NAME = 100
_LONGEST_TAG = 1000


def check_experiment(name: str) -> None:
    if _EXPERIMENT.fullmatch(name) is None:
        raise UsageError(
            f"experiment {name!r} is not a name that Azure ML takes: up to 256 ASCII letters, digits, - and _, with a "
            "letter or digit first",
            hint=f"for example --experiment {slug(name)}",
        )


def check_limits(spec: RunSpec, sweep: Sweep | None, sink: EventSink) -> None:
    trials = 0 if sweep is None else len(sweep.combinations)
    if trials > _MOST_TRIALS:
        raise UsageError(
            f"{trials:,} runs are too many for a sweep in Azure ML, which has at most {_MOST_TRIALS:,}",
            hint="split it: submit once for each value of one key, with --set KEY=VALUE",
        )
    if sweep is not None and min(sweep.parallel or 0, trials) > MOST_AT_ONCE:
        sink(Note(f"--parallel {sweep.parallel}: Azure ML runs at most {MOST_AT_ONCE} of a sweep at a time"))
    for exceeded in _exceeded(spec.tags):
        sink(Warned(f"{exceeded}; Azure ML may refuse the run"))


def _exceeded(tags: Mapping[str, str]) -> Iterator[str]:
    if len(tags) > _MOST_TAGS:
        yield f"{len(tags)} tags, and the documented limit is {_MOST_TAGS}"
    for name, value in tags.items():
        shown = name[:_LONGEST_TAG_NAME]
        if len(name) > _LONGEST_TAG_NAME:
            yield f"the name of tag {shown}… has {len(name):,} characters: the documented limit is {_LONGEST_TAG_NAME}"
        if len(value) > _LONGEST_TAG:
            yield f"tag {shown} has {len(value):,} characters: the documented limit is {_LONGEST_TAG:,}"
