"""An error as a person reads it: what failed, the details, what to type next; and commands as they are typed."""

from __future__ import annotations

from collections.abc import Iterator

from amlctl.cli.arguments import GlobalOptions
from amlctl.cli.render.tables import Line, bad, beginning, bold
from amlctl.core.message import Command, SecretLink, shell_line, with_commands
from amlctl.errors import AmlctlError

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
