"""The two streams of this process: results go to stdout, everything else to stderr; and errors as a person reads them:
what failed, the details, what to type next."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TextIO

import typer

from amlctl.cli.arguments import GlobalOptions
from amlctl.cli.render.tables import Line, Table, bad, beginning, bold, painted
from amlctl.core.message import Command, SecretLink, shell_line, with_commands
from amlctl.errors import AmlctlError

FALLBACK_WIDTH = 80
"""Cells of a line on a terminal that does not report its width."""

UNLIMITED_WIDTH = 10_000
"""Cells of a line in a file or a pipe without COLUMNS: what was cut there could not be read any other way."""


class Output:
    """Writes results, errors and messages in the way that each stream can show them."""

    def __init__(self, options: GlobalOptions, variables: Mapping[str, str]) -> None:
        self.options = options
        self.commands = Commands(options)
        is_capable = variables.get("TERM", "") not in ("dumb", "unknown")
        wants_color = is_capable and not options.no_color and not variables.get("NO_COLOR")
        self.out_is_terminal = sys.stdout.isatty()
        self.err_is_terminal = sys.stderr.isatty()
        self.can_ask = self.err_is_terminal and sys.stdin is not None and sys.stdin.isatty()
        self.can_redraw = self.err_is_terminal and is_capable
        self.shows_runs = self.can_redraw and not options.is_quiet
        is_forced = bool(variables.get("FORCE_COLOR"))
        self.out_has_color = (self.out_is_terminal or is_forced) and wants_color
        self.err_has_color = (self.err_is_terminal or is_forced) and wants_color
        self.out_has_links = self.out_is_terminal and wants_color and not variables.get("CI")
        fallback = FALLBACK_WIDTH if self.out_is_terminal else UNLIMITED_WIDTH
        self.width = shutil.get_terminal_size((fallback, 24)).columns or FALLBACK_WIDTH

    def result(self, document: Any, text: Iterable[Line | Table]) -> None:
        """The command's result: `document` with `--json`, else `text`."""
        if self.options.is_json:
            data = _document_bytes(document)
        else:
            data = "".join(map(self._drawn, text)).encode("utf-8", "backslashreplace")
        self.result_parts([data])

    def _drawn(self, block: Line | Table) -> str:
        if not isinstance(block, Table):
            in_words, has_color = self.commands.in_words, self.out_has_color
            return painted(block, in_words, has_color=has_color, has_links=self.out_has_links) + "\n"
        table = block.in_words(self.commands.in_words)
        if self.width >= UNLIMITED_WIDTH:
            return "".join(f"{line}\n" for line in table.plain())
        return table.drawn(self.width, has_color=self.out_has_color)

    def result_parts(self, parts: Iterable[bytes]) -> None:
        """A finished result, piece by piece."""
        sys.stdout.flush()
        sys.stdout.buffer.writelines(parts)
        sys.stdout.buffer.flush()

    def error(self, error: AmlctlError) -> None:
        """The one error that ends the command; with `--json` it is the document on stdout."""
        if self.options.is_json and self._put(_document_bytes(self.error_document(error))):
            return
        self.show_error(error)
        self._put(b"")  # what stdout did not take must not fail once more while Python ends

    def show_error(self, error: AmlctlError) -> None:
        """An error for people, on stderr, whatever the result is."""
        for line in error_lines(error, self.commands, is_verbose=self.options.is_verbose):
            self.write_line(line)

    def error_document(self, error: AmlctlError) -> dict[str, Any]:
        from amlctl.cli.render.json import error_document  # a shell that completes has no time for it

        return error_document(error, self.commands.in_words)

    def _put(self, data: bytes) -> bool:
        """Write to stdout; False if it cannot be written."""
        try:
            self.result_parts([data])
        except OSError:
            silence_stdout()
            return False
        return True

    def write_line(self, line: Line) -> None:
        """A line on stderr. Does nothing if stderr is closed."""
        self.write_text(self.painted(line))

    def painted(self, line: Line) -> str:
        """The line as text for stderr."""
        return painted(line, self.commands.in_words, has_color=self.err_has_color)

    def write_text(self, text: str) -> None:
        """A painted line on stderr. Does nothing if stderr is closed."""
        try:
            sys.stderr.flush()
            sys.stderr.buffer.write((text + "\n").encode("utf-8", "backslashreplace"))
            sys.stderr.buffer.flush()
        except (OSError, ValueError):
            pass


def open_in_desktop(address: str) -> None:
    """A page or a folder; nothing without a desktop, where a browser of text would take the terminal."""
    desktops = ("DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME")
    if sys.platform != "linux" or any(os.environ.get(name) for name in desktops):
        typer.launch(address)


def _document_bytes(document: Any) -> bytes:
    from amlctl.cli.render.json import document_bytes

    return document_bytes(document)


def open_missing_streams() -> None:
    """Open a stream that the caller has closed (`>&-`), on the null device."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115  open as long as the process


def silence_stdout() -> None:
    """Keep the interpreter from complaining at exit about output whose reader went away."""
    _silence(sys.stdout)


def flush_streams() -> None:
    """Flush before the interpreter does so at exit and changes the exit code if a terminal was closed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            _silence(stream)


def _silence(stream: TextIO) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


MAX_DETAILS = 12
"""Lines of details that are shown; `-v` and `--json` show all."""

_TAKE_STORE = frozenset(
    {
        ("sync",),
        *(("store", name) for name in ("stats", "gc", "verify")),
        *(("dataset", name) for name in ("list", "show", "remove", "restore")),
    }
)


def error_lines(error: AmlctlError, commands: Commands, *, is_verbose: bool) -> Iterator[Line]:
    """`error: …`, indented details, `hint: …`."""
    first, *more = commands.in_words(error.message).splitlines() or [""]
    yield [bad("error:"), f" {first}"]
    yield from (f"  {line}" for line in more)
    details = [f"  {commands.in_words(detail)}" for detail in error.details]
    yield from beginning(details, MAX_DETAILS, is_verbose=is_verbose)
    if error.hint:
        first, *more = commands.in_words(error.hint).splitlines()
        yield [bold("hint:"), f" {first}"]
        yield from (f"      {line}" for line in more)


class Commands:
    """Types the commands in messages with the workspace, the project and the store of this call.

    `store_url` is the value of `--store`, once a command has parsed it.
    """

    def __init__(self, options: GlobalOptions) -> None:
        self._options = options
        self.store_url: str | None = None

    def in_words(self, message: str) -> str:
        """The text of a message, its commands ready to be pasted into a shell, without secrets."""
        if isinstance(message, SecretLink):
            return message
        from amlctl.core.secret_names import masked  # many commands end without a message

        return masked(with_commands(message, self._typed))

    def _typed(self, command: Command) -> str:
        words, options = command.words, self._options
        if not words or words[0].startswith("-"):  # amlctl --help
            return str(command)
        project = () if options.project is None else ("--project", str(options.project))
        if words[0] == "init":  # creates a project, so the folder is its argument
            return shell_line(("amlctl", *words, *project[1:]))
        if command.workspace is not None:
            return shell_line(("amlctl", "--workspace", command.workspace, *project, *words))
        workspace = () if options.workspace is None else ("--workspace", options.workspace)
        return shell_line(("amlctl", *workspace, *project, *self._with_store(words)))

    def _with_store(self, words: tuple[str, ...]) -> tuple[str, ...]:
        url = _without_token(self.store_url)
        for length in (1, 2):
            if url and words[:length] in _TAKE_STORE:
                return (*words[:length], "--store", url, *words[length:])
        return words


def _without_token(url: str | None) -> str | None:
    """A SAS token is not shown; the command reads it from its variable."""
    return url.partition("?")[0] if url is not None and url.lower().startswith(("http://", "https://")) else url
