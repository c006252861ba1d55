"""The command of a job file, with inputs and outputs in their places."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping

from amlctl.errors import SettingsError

KEPT_PATH = "AMLCTL_KEPT_PATH"
"""The variable with the PATH of a command, where the runtime's own Python may be another one than the command's."""
RUNTIME_ARCHIVE = "amlctl-runtime.zip"
"""The runtime in a code snapshot: a file for the PYTHONPATH."""
_PLACE = re.compile(r"\$\{\{\s*(.*?)\s*\}\}", re.DOTALL)
_NAME = re.compile(r"(?:inputs|outputs)\.[A-Za-z_]\w*")


STORE_INPUT = "store"
"""The input of a job on Azure ML from which the runtime brings the datasets."""


def input_names(datasets: Iterable[str], inputs: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """By dataset, its name among the inputs of a run: the one of a job file, else `working_64x64` for
    `working/64x64`."""
    names = {one["dataset"]: name for name, one in inputs.items() if "dataset" in one}
    taken = {STORE_INPUT, *inputs}
    for dataset in sorted(set(datasets) - names.keys()):
        name = re.sub(r"\W", "_", dataset, flags=re.ASCII)
        name = name if name[:1].isalpha() else f"_{name}"
        while name in taken or name in names.values():
            name += "_"
        names[dataset] = name
    return names


def places_in(text: str) -> list[str]:
    """What stands between `${{` and `}}`: `inputs.data`, say. Raises SettingsError for what can stand for nothing."""
    for match in _PLACE.finditer(text):
        if _NAME.fullmatch(match[1]) is None:
            raise SettingsError(f"{match[0]} is not an input or output", hint="${{inputs.NAME}} or ${{outputs.NAME}}")
    return _PLACE.findall(text)


def filled_in(text: str, values: Mapping[str, str], paths: Mapping[str, str]) -> str:
    """A text with its places: `values` are written as they are, as Azure ML does, and so are `paths`."""
    return _PLACE.sub(lambda match: paths.get(match[1]) or values.get(match[1], match[0]), text)


def command_line(text: str, values: Mapping[str, str], paths: Mapping[str, str]) -> str:
    """The same for a line of shell: there a path is one word, whatever is in it and in whatever quotes it stands."""
    done, end = "", 0
    for match in _PLACE.finditer(text):
        done += text[end : match.start()]
        path = paths.get(match[1])
        done += values.get(match[1], match[0]) if path is None else _quoted(path, _open_quote(done))
        end = match.end()
    return done + text[end:]


def _open_quote(line: str) -> str:
    """Within which quotes the end of a line of shell stands; empty: in none."""
    quote, is_escaped = "", False
    for character in line:
        if is_escaped:
            is_escaped = False
        elif character == "\\" and quote != "'":
            is_escaped = True
        elif character == quote:
            quote = ""
        elif character in "'\"" and not quote:
            quote = character
    return quote


def _quoted(path: str, quote: str) -> str:
    if quote == "'":
        return path.replace("'", "'\\''")
    if quote == '"':
        return re.sub(r'([\\"$`])', r"\\\1", path)
    return shlex.quote(path)
