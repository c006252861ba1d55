"""What a job file names: inputs and outputs in its command, assets (`azureml:NAME:VERSION`) and addresses of data."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Optional
from urllib.parse import quote, unquote

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
    """What stands between `${{` and `}}`: `inputs.data`, say. Raises SettingsError for anything else."""
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


_ASSET = re.compile(r"azureml:([A-Za-z0-9_][\w.-]*)(?::([\w.-]+)|@latest)")


_BLOB = re.compile(r"(?:wasbs?|abfss?)://([^@/]+)@([^/]+?)\.(?:blob|dfs)\.([^/]+)/?(.*)")
_AT_ACCOUNT = re.compile(r"(https?://[^/]+\.blob\.[^/]+/[^/?]+)/?([^?]*)(.*)")


def https_of(url: str) -> str:
    """The address by which anyone may read what `url` names, if it is public; empty if it has no such address."""
    if found := _BLOB.fullmatch(url):
        return f"https://{found[2]}.blob.{found[3]}/{found[1]}/{quote(found[4], safe='/%')}"
    return url if url.startswith(("http://", "https://")) else ""


def container_of(url: str) -> Optional[tuple[str, str]]:
    """URL of a container, and the path in it, of data in Azure's blobs."""
    found = _AT_ACCOUNT.fullmatch(https_of(url))
    return None if found is None else (found[1] + found[3], unquote(found[2]))


@dataclass(frozen=True)
class AssetName:
    """Something registered in a workspace of Azure ML. `version` is empty for the latest one, which changes."""

    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"azureml:{self.name}:{self.version}" if self.version else f"azureml:{self.name}@latest"


def parse_asset(text: str) -> Optional[AssetName]:
    """None for anything else: an address, a name alone, one of a registry."""
    found = _ASSET.fullmatch(text)
    return None if found is None else AssetName(found[1], found[2] or "")
