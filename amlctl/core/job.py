"""What a run consists of besides its script: its processes, and what a job file names: inputs and outputs in its
command, assets (`azureml:NAME:VERSION`) and addresses of data.

Processes find each other by the variables that Azure ML sets for the three kinds of its jobs, so that a script that
works on this machine works there too. Ranks count from 0, node by node.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Optional
from urllib.parse import quote, unquote

from amlctl.errors import SettingsError

KEPT_PATH = "AMLCTL_KEPT_PATH"
"""The variable with the PATH of a command, where the runtime's own Python may be another one than the command's."""
PIPELINE = "pipeline"
"""The folder of the user's code, in a project and in a code snapshot."""
RUNTIME_ARCHIVE = "amlctl-runtime.zip"
"""The runtime in a code snapshot: a file for the PYTHONPATH."""
_PLACEHOLDER = re.compile(r"\$\{\{\s*(.*?)\s*\}\}", re.DOTALL)
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


def placeholders_in(text: str) -> list[str]:
    """What stands between `${{` and `}}`: `inputs.data`, say. Raises SettingsError for anything else."""
    for match in _PLACEHOLDER.finditer(text):
        if _NAME.fullmatch(match[1]) is None:
            raise SettingsError(f"{match[0]} is not an input or output", hint="${{inputs.NAME}} or ${{outputs.NAME}}")
    return _PLACEHOLDER.findall(text)


def filled_in(text: str, values: Mapping[str, str], paths: Mapping[str, str]) -> str:
    """A text with its placeholders filled: `values` are written as they are, as Azure ML does, and so are `paths`."""
    return _PLACEHOLDER.sub(lambda match: paths.get(match[1]) or values.get(match[1], match[0]), text)


def command_line(text: str, values: Mapping[str, str], paths: Mapping[str, str]) -> str:
    """The same for a line of shell: there a path is one word, whatever is in it and in whatever quotes it stands."""
    done, end = "", 0
    for match in _PLACEHOLDER.finditer(text):
        done += text[end : match.start()]
        path = paths.get(match[1])
        done += values.get(match[1], match[0]) if path is None else _quoted(path, _open_quote(done))
        end = match.end()
    return done + text[end:]


_CLOSED = re.compile(r"""(?:\\.|'[^']*'|"(?:\\.|[^"\\])*"|[^'"\\])*""", re.DOTALL)


def _open_quote(line: str) -> str:
    """Within which quotes the end of a line of shell stands; empty: in none."""
    return _CLOSED.sub("", line, count=1)[:1].strip("\\")


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


DISTRIBUTIONS = ("pytorch", "mpi", "tensorflow")


@dataclass(frozen=True)
class Rank:
    """One process of a run: its number in the whole run, its node, and its number on that node."""

    number: int
    node: int
    local: int


@dataclass(frozen=True)
class Distribution:
    """`processes` on each of `instances` nodes; `kind` is one of `DISTRIBUTIONS`, None for a plain single process."""

    kind: Optional[str] = None
    processes: int = 1
    instances: int = 1

    @property
    def world_size(self) -> int:
        return self.processes * self.instances

    @property
    def ranks(self) -> list[Rank]:
        return [Rank(number, *divmod(number, self.processes)) for number in range(self.world_size)]

    @property
    def text(self) -> str:
        """For people; empty for a plain single process."""
        if self.kind is None:
            return ""
        processes = f"{self.processes} process{'es' if self.processes > 1 else ''}"
        return f"{self.kind}, {processes}" + (f" on each of {self.instances} instances" if self.instances > 1 else "")

    def ports_wanted(self) -> int:
        """How many free ports `rank_variables` needs: every worker of TensorFlow listens."""
        return {None: 0, "tensorflow": self.world_size}.get(self.kind, 1)


def rank_variables(distribution: Distribution, rank: Rank, host: str, ports: Sequence[int]) -> Mapping[str, str]:
    """For the process of `rank`; all of a run get the same `host` and `ports`."""
    size = distribution.world_size
    if distribution.kind == "pytorch":
        return {
            "MASTER_ADDR": host,
            "MASTER_PORT": str(ports[0]),
            "RANK": str(rank.number),
            "WORLD_SIZE": str(size),
            "LOCAL_RANK": str(rank.local),
            "LOCAL_WORLD_SIZE": str(distribution.processes),
            "NODE_RANK": str(rank.node),
        }
    if distribution.kind == "mpi":
        return {
            "OMPI_COMM_WORLD_RANK": str(rank.number),
            "OMPI_COMM_WORLD_SIZE": str(size),
            "OMPI_COMM_WORLD_LOCAL_RANK": str(rank.local),
            "OMPI_COMM_WORLD_LOCAL_SIZE": str(distribution.processes),
            "AZ_BATCH_MASTER_NODE": f"{host}:{ports[0]}",
        }
    if distribution.kind == "tensorflow":
        cluster = {"worker": [f"{host}:{port}" for port in ports]}
        task = {"type": "worker", "index": rank.number}
        return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task, "environment": "cloud"})}
    return {}


def log_names(world_size: int) -> list[str]:
    """Names of a run's logs as Azure ML gives them, rank 0 first: one for every process."""
    if world_size == 1:
        return ["std_log.txt"]
    return [f"std_log_process_{number}.txt" for number in range(world_size)]
