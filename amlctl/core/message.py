"""Commands in messages, as data, so that a finished text never has to be edited.

`Command` holds the words of one command, `Message` prose with commands in it. Both are strings as well, for logs,
records and comparisons, without further options. Those of this call (`--workspace`, `--project`, `--store`) are added
once, where the terminal or the JSON document is written.
"""

from __future__ import annotations

import re
import shlex
from typing import Any, Callable, Optional

_UNPRINTABLE = r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]"


class Command(str):
    """One command of amlctl, as unquoted words: `Command("sync", "--pull", "data_blobs/a b")`.

    `workspace` is for a command that uses another workspace than this call.
    """

    words: tuple[str, ...]
    workspace: Optional[str]

    def __new__(cls, *words: str, workspace: Optional[str] = None) -> Command:
        options = () if workspace is None else ("--workspace", workspace)
        made = super().__new__(cls, shell_line(("amlctl", *options, *words)))
        made.words, made.workspace = words, workspace
        return made

    def __getnewargs_ex__(self) -> tuple[tuple[str, ...], dict[str, Any]]:
        return self.words, {"workspace": self.workspace}


class Message(str):
    """Parts, joined without a separator; some are commands."""

    parts: tuple[str, ...]

    def __new__(cls, *parts: str) -> Message:
        made = super().__new__(cls, "".join(parts))
        made.parts = parts
        return made

    def __getnewargs__(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.parts


def with_commands(text: str, typed: Callable[[Command], str]) -> str:
    """`text`, with each of its commands replaced by `typed`."""
    if isinstance(text, Command):
        return typed(text)
    if isinstance(text, Message):
        return "".join(with_commands(part, typed) for part in text.parts)
    return text


def shell_line(words: tuple[str, ...]) -> str:
    return " ".join(map(shell_word, words))


def shell_word(word: str) -> str:
    """Quoted for a shell if needed. Characters that a terminal does not show become escapes of bash and zsh."""
    if word.isprintable() or not re.search(_UNPRINTABLE, word):
        return shlex.quote(word)
    quoted = word.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + re.sub(_UNPRINTABLE, _escape, quoted) + "'"


def _escape(found: re.Match[str]) -> str:
    return "".join(f"\\x{byte:02x}" for byte in found[0].encode("utf-8", "surrogateescape"))
