"""One call of the command line: its options, its streams, and the project that it works on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from amlctl.cli.global_options import GlobalOptions
from amlctl.cli.output import Output
from amlctl.cli.render.style import Style
from amlctl.errors import NotFound

if TYPE_CHECKING:
    from amlctl.cli.reporter import Reporter
    from amlctl.wiring import App

_PART_BYTES = 1 << 20


class Invocation:
    """Everything that a command function needs beside its own options. Opened piece by piece, when asked for."""

    def __init__(self, options: GlobalOptions) -> None:
        self.options = options
        self.is_json = options.is_json
        self.cwd = _present_folder()
        self.output = Output(options, os.environ)

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

    def app_of(self, run: str) -> tuple[App, str]:
        """The app whose workspace has RUN, and its id, or what to look up there. `--workspace` has the last word."""
        return (self.app, run) if self.options.workspace is not None else self.app.holding(run)

    @property
    def log_folder(self) -> Path | None:
        """Where a report of a fault belongs; None as long as no project was opened."""
        app = self.__dict__.get("app")
        return app.project.state_dir / "logs" if app is not None else None

    def close(self) -> None:
        """Stop drawing, so that a result or an error can follow."""
        if "reporter" in self.__dict__:
            self.reporter.close()

    def pause(self) -> None:
        """Stop drawing until the next event, so that a question can be asked."""
        if "reporter" in self.__dict__:
            self.reporter.pause()

    def result(self, document: Any, text: Callable[[Style, int], Sequence[str]]) -> None:
        """Print the command's result, as the document or as the lines that `text` makes."""
        self.close()
        self.output.result(document, text)

    def result_parts(self, parts: Iterable[bytes]) -> None:
        """Print a result that is too large to be held. Nothing is printed where one of its parts fails."""
        import tempfile  # here, since every command starts by way of this file

        with tempfile.TemporaryFile() as whole:
            whole.writelines(parts)
            self.close()
            whole.seek(0)
            self.output.result_parts(iter(lambda: whole.read(_PART_BYTES), b""))


def _present_folder() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise NotFound("the folder that you are in does not exist any more", hint="cd to one that does") from error


def invocation(ctx: typer.Context) -> Invocation:
    found: Invocation = ctx.find_object(Invocation)  # type: ignore[assignment]
    return found
