"""What messages consist of: commands as data, so that a finished text never has to be edited; numbers, suggestions.

`Command` holds the words of one command, `Message` prose with commands in it. Both are strings as well, for logs,
records and comparisons, without further options. Those of this call (`--workspace`, `--project`, `--store`) are added
once, where the terminal or the JSON document is written.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
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


class Again(str):
    """The part of a hint that has the user repeat the command: another one has to be named where a run reports it."""


AGAIN = Again("run the same command again")


class SecretLink(str):
    """A link that is the result of a command: shown whole there, where secrets are masked otherwise."""


def with_commands(text: str, typed: Callable[[Command], str]) -> str:
    """`text`, with each of its commands replaced by `typed`."""
    if isinstance(text, Command):
        return typed(text)
    if isinstance(text, Message):
        return "".join(with_commands(part, typed) for part in text.parts)
    return text


def if_intended(*words: str) -> Message:
    """The hint of a question that was answered with no, or could not be asked: the command that needs no answer."""
    return Message("if that is intended: ", Command(*words, "--yes"))


def instead_of_again(hint: str, command: Command) -> Message:
    """`hint`, with `command` as what to run, at its end if it names no command to repeat."""
    parts = hint.parts if isinstance(hint, Message) else (hint,)
    if any(isinstance(part, Again) for part in parts):
        return Message(*(command if isinstance(part, Again) else part for part in parts))
    return Message(*parts, "; then: ", command)


def commands_in(text: str) -> list[Command]:
    """The commands of a message, in order."""
    if isinstance(text, Command):
        return [text]
    return [one for part in text.parts for one in commands_in(part)] if isinstance(text, Message) else []


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


ID_CELLS = 12
"""Digits of an id that are shown; any unique prefix can be typed."""


def count(number: int, noun: str, plural: str = "") -> str:
    """`1 file`, `12,000 files`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def some(names: Sequence[str], most: int) -> str:
    """`a, b, c and 4 more`."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def similar(word: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """Up to three of `known` that `word` may be a typo of, the most similar first; `cutoff` 1 means identical."""
    from difflib import get_close_matches  # here, since few commands end with a typo

    return get_close_matches(word.lower(), list(known), cutoff=cutoff)


def did_you_mean(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """`did you mean X?` for the most similar of `known`; empty if none is similar enough."""
    near = similar(word, known, cutoff)
    return f"did you mean {near[0]}?" if near else ""


def below_data_blobs(dataset: str) -> str:
    """The dataset as the argument of a command in a message."""
    return f"data_blobs/{dataset}"


def script_word(name: str) -> str:
    """The script as the argument of a command: a name that begins with a dash would be an option."""
    return f"./{name}" if name.startswith("-") else name


def size(size_bytes: float) -> str:
    """`999 B`, `1.2 kB`, `380 MB`: decimal units, three digits at most."""
    if size_bytes < 999.5:
        return f"{size_bytes:.0f} B"
    units = ["kB", "MB", "GB", "TB", "PB"]
    value = size_bytes / 1000
    unit = units.pop(0)
    while value >= 999.5 and units:
        value /= 1000
        unit = units.pop(0)
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"
