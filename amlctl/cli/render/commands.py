"""How the commands in a message are typed: with the workspace, the project and the store that this call was given."""

from __future__ import annotations

from amlctl.cli.global_options import GlobalOptions
from amlctl.core.message import Command, shell_line, with_commands

_TAKE_STORE = frozenset({("sync",), ("store", "stats"), ("store", "gc"), ("store", "verify")})


class Commands:
    """`store_url` is what `--store` has said, once a command knows it."""

    def __init__(self, options: GlobalOptions) -> None:
        self._options = options
        self.store_url: str | None = None

    def in_words(self, message: str) -> str:
        """The text of a message, its commands ready to be pasted into a shell, and no secret in it."""
        from amlctl.core.secret_names import masked  # many commands end without a message

        return masked(with_commands(message, self._typed))

    def _typed(self, command: Command) -> str:
        words, options = command.words, self._options
        if not words or words[0].startswith("-"):  # amlctl --help
            return str(command)
        project = () if options.project is None else ("--project", str(options.project))
        if words[0] == "init":  # takes no project, but makes one
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
    """A SAS token is not shown; it comes from its variable then."""
    return url.partition("?")[0] if url is not None and url.lower().startswith(("http://", "https://")) else url
