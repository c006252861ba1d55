"""What was typed for the script, and stands where `submit` takes it for its own: the command as it was meant."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Collection, Sequence
from typing import Any

from amlctl.core.message import Command, Message

_EXTRA = re.compile(r"Got unexpected extra arguments?(?:\(s\))? \((\S+).*\)", re.DOTALL)
_SCRIPT_SUFFIXES = (".py", ".yml", ".yaml")
_NEAR = 0.75
"""As alike a word has to be to one of our options to be a slip of the pen."""


def misplaced_hint(error: Any, arguments: Sequence[str]) -> str:
    """The hint for Typer's error about `submit`; empty where it is about something else."""
    extra = _EXTRA.fullmatch(error.format_message().rstrip("."))
    unknown = error.option_name if type(error).__name__ == "NoSuchOption" else extra[1] if extra else ""
    if not unknown:
        return ""
    options = {name for param in error.ctx.command.params for name in (*param.opts, *param.secondary_opts)}
    meant = _as_meant(arguments, unknown, options)
    told = "what belongs to the script follows --"
    hint = Message(told, ": ", meant) if meant else Message(told, "; see ", Command("submit", "--help"))
    near = difflib.get_close_matches(unknown, options, n=1, cutoff=_NEAR)
    return Message(f"did you mean {near[0]}? If not, ", hint) if near else hint


def _as_meant(arguments: Sequence[str], unknown: str, options: Collection[str]) -> str:
    """The command line as typed, with the unknown word and what follows it, up to an option of ours, moved behind `--`;
    empty without a script. Its options are there already: none is added."""
    border = list(arguments).index("--") if "--" in arguments else len(arguments)
    names = [argument.partition("=")[0] for argument in arguments[:border]]
    begin = next((place for place, name in enumerate(names) if name == unknown), border)
    end = next((place for place in range(begin + 1, border) if names[place] in options), border)
    kept = [*arguments[:begin], *arguments[end:border]]
    if begin == border or not any(argument.endswith(_SCRIPT_SUFFIXES) for argument in kept):
        return ""
    return shlex.join(["amlctl", *kept, "--", *arguments[begin:end], *arguments[border + 1 :]])
