"""One call of the command line: its options, its streams, and the project that it works on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import typer

from amlctl.cli.arguments import GlobalOptions
from amlctl.cli.output import Output
from amlctl.cli.render.tables import Line, Table, warning
from amlctl.errors import AmlctlError, CheckFailed, Conflict, NotFound, RightsError, UsageError

if TYPE_CHECKING:
    from amlctl.cli.reporter import Reporter
    from amlctl.wiring import App

_PART_BYTES = 1 << 20


class Invocation:
    """Everything that a command function needs beside its own options, opened on first use."""

    def __init__(self, options: GlobalOptions) -> None:
        self.options = options
        self.is_json = options.is_json
        self.cwd = _current_folder()
        self.output = Output(options, os.environ)
        self.is_resumable = False
        """Whether the same command, after Ctrl-C, continues with what has arrived."""

    @cached_property
    def reporter(self) -> Reporter:
        from amlctl.cli.reporter import Reporter

        return Reporter(self.output)

    @cached_property
    def app(self) -> App:
        """Project, settings, store and workspace. Raises NotFound outside a project, SettingsError."""
        from amlctl.wiring import open_app

        return open_app(
            self.cwd,
            os.environ,
            project=self.options.project,
            workspace=self.options.workspace,
            sink=lambda event: self.reporter(event),
        )

    def find_run(self, run: str) -> tuple[str, App]:
        """The id of RUN, and the app whose workspace has it. `--workspace` takes precedence."""
        from amlctl.operations.find_run import located

        return located(self.app, run, is_in_use=self.options.workspace is not None)

    @property
    def log_folder(self) -> Path | None:
        """Folder for the report of an internal error; None before a project was opened."""
        app = self.__dict__.get("app")
        return app.project.state_dir / "logs" if app is not None else None

    @property
    def resume_hint(self) -> str:
        """After Ctrl-C: what is kept, and how to continue."""
        if not self.is_resumable or self.reporter.has_run:
            return ""
        moved = self.reporter.moved
        return f"{moved}what has arrived is kept; run the same command again to continue"

    def close(self) -> None:
        """Stop drawing, so that a result or an error can follow."""
        if "reporter" in self.__dict__:
            self.reporter.close()

    def pause(self) -> None:
        """Stop drawing until the next event, so that a question can be asked."""
        if "reporter" in self.__dict__:
            self.reporter.pause()

    def result(self, document: Any, text: Iterable[Line | Table]) -> None:
        """Print the command's result, as the document or as text."""
        self.close()
        self.output.result(document, text)

    def result_parts(self, parts: Iterable[bytes]) -> None:
        """Print a result too large for memory. Prints nothing if one of its parts fails."""
        import tempfile  # here, since every command imports this module

        with tempfile.TemporaryFile() as whole:
            whole.writelines(parts)
            self.close()
            whole.seek(0)
            self.output.result_parts(iter(lambda: whole.read(_PART_BYTES), b""))


def _current_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise NotFound("the current folder no longer exists", hint="cd to one that does") from error


def invocation(ctx: typer.Context) -> Invocation:
    found: Invocation = ctx.find_object(Invocation)  # type: ignore[assignment]
    return found


_OF_ONE_DATASET = (NotFound, Conflict, CheckFailed, RightsError, UsageError)
"""Errors that end the work on one dataset; any other would hit the next one as well."""

Result = TypeVar("Result")


@dataclass
class Outcomes(Generic[Result]):
    """What each of several datasets led to; `not_tried` are those after an error that would have hit them as well."""

    results: list[Result] = field(default_factory=list)
    failures: list[AmlctlError] = field(default_factory=list)
    not_tried: Sequence[str] = ()

    def to_json(self, call: Invocation) -> dict[str, Any]:
        """What `--json` has beside the results; empty without a failure."""
        if not self.failures:
            return {}
        return {
            "errors": [call.output.error_document(failure)["error"] for failure in self.failures],
            "not_tried": list(self.not_tried),
        }

    def show_failures(self, call: Invocation) -> int:
        """After the results; the exit code of the first failure."""
        if self.not_tried:
            call.output.write_line([warning("warning:"), f" not tried: {', '.join(self.not_tried)}"])
        for failure in self.failures:
            call.output.show_error(failure)
        return self.failures[0].exit_code if self.failures else 0


def each_dataset(datasets: Sequence[str], act: Callable[[str], Result]) -> Outcomes[Result]:
    """Try each dataset. A single error without any result is raised itself."""
    outcomes = Outcomes[Result]()
    for number, dataset in enumerate(datasets, 1):
        try:
            outcomes.results.append(act(dataset))
        except AmlctlError as error:
            outcomes.failures.append(error)
            if not isinstance(error, _OF_ONE_DATASET):
                outcomes.not_tried = datasets[number:]
                break
    if len(outcomes.failures) == 1 and not outcomes.results:
        raise outcomes.failures[0]
    return outcomes
