"""What was typed with `submit` is used as it is, or refused: nothing is left out or changed in silence."""

from __future__ import annotations

from amlctl.core.events import EventSink, Note
from amlctl.core.run_id import MAX_NAME, slug
from amlctl.errors import UsageError
from amlctl.operations.submit.request import SubmitRequest


def check_typed(request: SubmitRequest, sink: EventSink) -> None:
    """Raises UsageError."""
    single = {
        "--config": request.config,
        "--experiment": request.experiment,
        "--compute": request.compute,
        "--mode": request.mode,
        "--distribution": request.distribution,
        "--name": request.name,
        "--from": request.from_run,
    }
    lists = {"--dataset": request.datasets, "--produces": request.produces, "--set": request.overrides}
    for option, values in ({name: (value,) for name, value in single.items()} | lists).items():
        if any(value is not None and not value.strip() for value in values or ()):
            raise UsageError(f"{option} is empty", hint="give it a value, or leave it out")
    if request.experiment is not None and not request.experiment.isprintable():
        raise UsageError("--experiment has characters that cannot be shown", hint="use letters, digits, - and _")
    if request.name is not None:
        _check_name(request.name, sink)


def _check_name(name: str, sink: EventSink) -> None:
    """The id of a run begins with its name, as far as Azure ML and every file system take it."""
    kept = slug(name)
    if kept == name:
        return
    if not any(char.isascii() and char.isalnum() for char in name):
        raise UsageError(
            f"--name {name!r} has no ASCII letter or digit, and run ids consist of these",
            hint="add one, such as --name train-1; a --tag takes any text",
        )
    why = f"it is cut after {MAX_NAME} characters" if len(name) > MAX_NAME else "ids have letters, digits, - and _ only"
    sink(Note(f"the run's id begins with {kept!r} instead of {name!r}: {why}"))
