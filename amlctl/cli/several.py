"""A command that is given several datasets: each is tried, and what one of them fails at keeps none of the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from amlctl.cli.invocation import Invocation
from amlctl.core.events import Warned
from amlctl.errors import AmlctlError, CheckFailed, Conflict, NotFound, RightsError, UsageError

_OF_ONE_DATASET = (NotFound, Conflict, CheckFailed, RightsError, UsageError)
"""Errors that end the work on one dataset; any other would hit the next one, too."""

Result = TypeVar("Result")


@dataclass
class Tried(Generic[Result]):
    """What came of each dataset; `not_tried` are those after an error that would have hit them, too."""

    results: list[Result] = field(default_factory=list)
    failures: list[AmlctlError] = field(default_factory=list)
    not_tried: Sequence[str] = ()

    def to_json(self, call: Invocation) -> dict[str, Any]:
        """What `--json` has beside the results; empty where nothing failed."""
        if not self.failures:
            return {}
        return {
            "errors": [call.output.error_document(failure)["error"] for failure in self.failures],
            "not_tried": list(self.not_tried),
        }

    def tell_failures(self, call: Invocation) -> int:
        """After the results; the exit code of the first failure."""
        if self.not_tried:
            call.reporter(Warned(f"not tried: {', '.join(self.not_tried)}"))
        for failure in self.failures:
            call.output.tell(failure)
        return self.failures[0].exit_code if self.failures else 0


def each_dataset(datasets: Sequence[str], act: Callable[[str], Result]) -> Tried[Result]:
    """Raises the error itself where it is the only one and there is no result to tell beside it."""
    tried = Tried[Result]()
    for number, dataset in enumerate(datasets, 1):
        try:
            tried.results.append(act(dataset))
        except AmlctlError as error:
            tried.failures.append(error)
            if not isinstance(error, _OF_ONE_DATASET):
                tried.not_tried = datasets[number:]
                break
    if len(tried.failures) == 1 and not tried.results:
        raise tried.failures[0]
    return tried
