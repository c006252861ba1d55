"""A command job of Azure ML: what its YAML says, and its command with inputs and outputs in their places."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from amlctl.errors import SettingsError

_PLACE = re.compile(r"\$\{\{\s*(.*?)\s*\}\}", re.DOTALL)
_NAME = re.compile(r"(?:inputs|outputs)\.[A-Za-z_]\w*")


@dataclass(frozen=True)
class JobInput:
    """A literal has `value`, the text that it becomes; data has `path`, as written, and `type` and `mode`."""

    value: Optional[str] = None
    path: str = ""
    type: str = "uri_folder"
    mode: str = ""


@dataclass(frozen=True)
class CommandJob:
    """What the file says; None and empty: nothing. `folder` is what its paths are relative to.

    `environment` is text as `parse_environment` takes it; `environment_name` is the id of one that
    others have made: it is registered in Azure ML, or an image alone.
    `outputs` has the type of each, `output_places` what `JobCommand` has. `node` is what is asked of Azure ML's nodes,
    in the file's own words (`resources`, `queue_settings`, `identity`); `node_only` are all keys that mean nothing
    elsewhere, `unsupported` those that mean nothing to amlctl, each as `file:line: key`. `places` tells the `file:line`
    of a key (`code`, `inputs.data`).
    """

    command: str
    code: Optional[str] = None
    environment: Optional[str] = None
    environment_name: Optional[str] = None
    inputs: Mapping[str, JobInput] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    output_places: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    compute: Optional[str] = None
    distribution: Optional[str] = None
    processes: Optional[int] = None
    instances: Optional[int] = None
    timeout_s: Optional[float] = None
    variables: Mapping[str, str] = field(default_factory=dict)
    display_name: Optional[str] = None
    experiment: Optional[str] = None
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    node: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    node_only: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JobCommand:
    """What a run's record keeps of it: the command, and by name what stands for an input and an output.

    An input is `{"value": text}`, `{"dataset": name}`, or `{"asset": "azureml:NAME:VERSION", "type", "mode"}` for data
    that Azure ML brings to its nodes, also from an address in the place of the name; an output `uri_folder` or
    `uri_file`. An output that goes to a datastore, and not to the run's own folder, has `{"uri", "mode"}` in
    `output_places`.
    """

    text: str
    inputs: Mapping[str, Mapping[str, str]]
    outputs: Mapping[str, str]
    output_places: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def assets(self) -> Mapping[str, Mapping[str, str]]:
        """Those inputs that Azure ML brings."""
        return {name: one for name, one in self.inputs.items() if "asset" in one}


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
            raise SettingsError(f"{match[0]} is no input and no output", hint="${{inputs.NAME}} or ${{outputs.NAME}}")
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
