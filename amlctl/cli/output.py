"""Where a command's words go: results to stdout, everything else to stderr."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TextIO

from amlctl.cli.global_options import GlobalOptions
from amlctl.cli.render.commands import Commands
from amlctl.cli.render.errors import error_lines
from amlctl.cli.render.json import document_bytes, error_document
from amlctl.cli.render.style import Style, is_capable, wants_colour
from amlctl.errors import AmlctlError

FALLBACK_WIDTH = 80
"""Cells of a line on a terminal that does not tell its own width."""

UNLIMITED_WIDTH = 10_000
"""Cells of a line in a file or a pipe, unless COLUMNS says otherwise: nobody could read there what was cut."""


class Output:
    """The two streams of this process, and what they can show."""

    def __init__(self, options: GlobalOptions, variables: Mapping[str, str]) -> None:
        self.options = options
        self.commands = Commands(options)
        self.out_is_terminal = sys.stdout.isatty()
        self.err_is_terminal = sys.stderr.isatty()
        self.can_ask = self.err_is_terminal and sys.stdin is not None and sys.stdin.isatty()
        self.can_redraw = self.err_is_terminal and is_capable(variables)
        self.out_style = Style(
            wants_colour(variables, is_terminal=self.out_is_terminal, is_colourless=options.is_colourless)
        )
        self.err_style = Style(
            wants_colour(variables, is_terminal=self.err_is_terminal, is_colourless=options.is_colourless)
        )
        fallback = FALLBACK_WIDTH if self.out_is_terminal else UNLIMITED_WIDTH
        self.width = shutil.get_terminal_size((fallback, 24)).columns or FALLBACK_WIDTH

    def result(self, document: Any, text: Callable[[Style, int], Sequence[str]]) -> None:
        """The command's result: `document` with `--json`, else the lines that `text` makes for style and width."""
        if self.options.is_json:
            data = document_bytes(document)
        else:
            lines = text(self.out_style, self.width)
            shown = [self.out_style.safe(self.commands.in_words(line)) for line in lines]
            data = "".join(line + "\n" for line in shown).encode("utf-8", "backslashreplace")
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def result_parts(self, parts: Iterable[bytes]) -> None:
        """A result that is finished, piece by piece."""
        sys.stdout.flush()
        sys.stdout.buffer.writelines(parts)
        sys.stdout.buffer.flush()

    def error(self, error: AmlctlError) -> None:
        """The one error that ends the command; with `--json` it is the document on stdout."""
        if self.options.is_json and self._put(document_bytes(self.error_document(error))):
            return
        self.tell(error)
        self._put(b"")  # what stdout did not take must not fail once more while Python ends

    def tell(self, error: AmlctlError) -> None:
        """An error for people, on stderr, beside whatever the result is."""
        for line in error_lines(error, self.err_style, self.commands.in_words, is_verbose=self.options.is_verbose):
            self.write_line(line)

    def error_document(self, error: AmlctlError) -> dict[str, Any]:
        return error_document(error, self.commands.in_words)

    def _put(self, data: bytes) -> bool:
        """Write to stdout; False where it can't be written."""
        try:
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        except OSError:
            silence_stdout()
            return False
        return True

    def write_line(self, line: str) -> None:
        """A line on stderr, with no control character in it but our colors. Does nothing where stderr is gone."""
        try:
            sys.stderr.flush()
            sys.stderr.buffer.write((self.err_style.safe(line) + "\n").encode("utf-8", "backslashreplace"))
            sys.stderr.buffer.flush()
        except (OSError, ValueError):
            pass


def open_missing_streams() -> None:
    """A stream that the caller closed (`>&-`) goes to nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  open as long as the process


def silence_stdout() -> None:
    """What is still buffered for a reader that went away must not make the interpreter complain at exit."""
    _silence(sys.stdout)


def flush_streams() -> None:
    """Before the interpreter does so at exit, and changes the exit code where a terminal was closed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _silence(stream)


def _silence(stream: TextIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
