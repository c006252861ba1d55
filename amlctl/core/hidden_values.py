"""Secrets in a script's arguments, its config and the indexes of its environment: the record has
`<secret:NAME>` instead of their value.

The value travels beside the record, as the variable NAME, as those of `--env` do; the runtime puts it in again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable

from amlctl.core.secret_names import MASK, carries_secret, is_secret, masked_values, replaced
from amlctl.errors import SettingsError, UsageError

VARIABLE_PREFIX = "AMLCTL_SECRET_"
"""Begins the variables that are made for such values."""
ENVIRONMENT_PREFIX = f"{VARIABLE_PREFIX}ENVIRONMENT_"
"""Of those that making the environment takes; the script does not get them."""

_PLACEHOLDER = re.compile(r"<secret:([A-Za-z_][A-Za-z0-9_]*)>")
_SHORT = 6
"""A value with fewer characters stands in many words by accident."""


class Hider:
    """Takes secrets out of what was typed; `variables` has their values.

    `known` are secret variables of the run; `named` are options and settings whose values are secrets by the user's
    word, however they are spelled (`hf_token`, `--hf-token`).
    """

    def __init__(self, known: Mapping[str, str], named: Iterable[str] = ()) -> None:
        self._known = {value: name for name, value in known.items() if len(value) >= _SHORT and _is_name(name)}
        self._named = {option_name(name) for name in named}
        self.variables: dict[str, str] = {}

    def arguments(self, words: Sequence[str]) -> list[str]:
        """The script's arguments: `--token X`, `--token=X`, `token=X`, signed URLs, and values of `known`."""
        hidden: list[str] = []
        before = ""
        for number, word in enumerate(words, 1):
            name, equals, value = word.partition("=")
            if equals and value and self.is_secret(name, value):
                hidden.append(f"{name}={self._hide('ARG', name, value)}")
            elif before.startswith("-") and "=" not in before and self._is_value_of(before, word):
                hidden.append(self._hide("ARG", before, word))
            elif carries_secret(word):
                hidden.append(self._hide("ARG", str(number), word))
            else:
                hidden.append(self._without_known(word))
            before = word
        return hidden

    def setting(self, key: str, value: Any, old: Any) -> Any:
        """What `--set` puts in the place of `old`. Raises UsageError for a secret that is not a string."""
        if isinstance(value, str):
            # The whole value: in YAML a part of one could not be put in again.
            is_hidden = self.is_secret(key, value) or self._without_known(value) != value
            return self._hide("SET", key, value) if is_hidden else value
        if isinstance(value, list):
            return [self.setting(key, one, "") for one in value]
        if isinstance(value, dict):
            return {name: self.setting(f"{key}.{name}", one, "") for name, one in value.items()}
        if old is None and isinstance(value, (int, float)) and self.is_secret(key, json.dumps(value)):
            raise UsageError(
                f"--set {key}: a secret must be a string, or it would be part of the run's record",
                hint=f"--set '{key}=\"{value}\"', or pass it to the script with --env NAME=VALUE",
            )
        return value

    def environment(self, text: str) -> str:
        """The text of an environment file: passwords and tokens in the URLs of package indexes."""

        def place(secret: str) -> str:
            names = {value: name for name, value in self.variables.items() if name.startswith(ENVIRONMENT_PREFIX)}
            name = names.get(secret, f"{ENVIRONMENT_PREFIX}{len(names) + 1}")
            self.variables[name] = secret
            return f"<secret:{name}>"

        return replaced(text, place)

    def address(self, name: str, text: str) -> str:
        """The address of an input; the rest of it still says where it is."""
        return replaced(text, lambda secret: self._hide("INPUT", name, secret))

    def tags(self, values: Mapping[str, str]) -> dict[str, str]:
        """They are for reading, so a secret one is only masked."""
        return {
            name: MASK if value and self._is_named(name) else self._without_known(value)
            for name, value in masked_values(values).items()
        }

    def is_secret(self, name: str, value: str) -> bool:
        return self._is_named(name) or is_secret(name, value)

    def _is_named(self, name: str) -> bool:
        return option_name(name) in self._named or option_name(name.rpartition(".")[2]) in self._named

    def _is_value_of(self, option: str, word: str) -> bool:
        if self._is_named(option):
            return bool(word) and not word.startswith("--")
        return not word.startswith("-") and is_secret(option, word)

    def _hide(self, kind: str, name: str, value: str) -> str:
        if _PLACEHOLDER.fullmatch(value):
            return value
        if value in self._known:
            return f"<secret:{self._known[value]}>"
        variable = f"{VARIABLE_PREFIX}{kind}_" + re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")
        number, first = 1, variable
        while self.variables.get(variable, value) != value:
            number += 1
            variable = f"{first}_{number}"
        self.variables[variable] = value
        return f"<secret:{variable}>"

    def _without_known(self, word: str) -> str:
        for value in sorted(self._known, key=len, reverse=True):
            word = word.replace(value, f"<secret:{self._known[value]}>")
        return word


def option_name(name: str) -> str:
    """`--hf-token`, `hf_token` and `HF_TOKEN` as one."""
    return name.lstrip("-").replace("-", "_").lower()


def hidden_in(value: Any) -> set[str]:
    """Names of the variables that a recorded value has placeholders for."""
    return set(_PLACEHOLDER.findall(json.dumps(value)))


def filled(value: Any, variables: Mapping[str, str]) -> Any:
    """A recorded value (what JSON can hold) with its secrets. Raises SettingsError: one was not handed over."""
    if isinstance(value, str):
        return _PLACEHOLDER.sub(_filler(variables, lambda secret: secret), value)
    if isinstance(value, list):
        return [filled(one, variables) for one in value]
    if isinstance(value, dict):
        return {name: filled(one, variables) for name, one in value.items()}
    return value


def filled_text(text: str, variables: Mapping[str, str]) -> str:
    """The same for a config as text: a placeholder that is a whole value, in quotes or not, becomes a quoted one."""
    whole = re.compile(rf'"{_PLACEHOLDER.pattern}"|(?<=[:-] ){_PLACEHOLDER.pattern}(?=\s*$)', re.MULTILINE)
    return whole.sub(_filler(variables, quoted), text)


def quoted(text: str) -> str:
    """A JSON string, with the line breaks escaped that only YAML knows; so it is a YAML string too."""
    return _BREAKS.sub(lambda match: f"\\u{ord(match.group()):04x}", json.dumps(text, ensure_ascii=False))


_BREAKS = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")


def _filler(variables: Mapping[str, str], shape: Callable[[str], str]) -> Callable[[re.Match[str]], str]:
    def fill(match: re.Match[str]) -> str:
        name = next(name for name in match.groups() if name)
        if name in variables:
            return shape(variables[name])
        if name.startswith(VARIABLE_PREFIX):
            raise SettingsError(f"the secret {name} was not passed to the run", hint="submit it again")
        return match.group(0)

    return fill


def _is_name(name: str) -> bool:
    return _PLACEHOLDER.fullmatch(f"<secret:{name}>") is not None
