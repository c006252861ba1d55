"""`Workspace`: where runs are made. The local one and Azure ML keep the same promises.

- A run's id is chosen by the caller; `start` with an id that exists already starts nothing twice.
- A run goes on when the caller's process ends. Its record is up to date whenever it is read: a run that
  nobody looks after any more is Failed, with the reason, never Running for ever.
- A log is read by offset: nothing is lost and nothing comes twice, however often a reader comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Protocol, runtime_checkable

from amlctl.core.check import Check
from amlctl.core.compute import ClusterTarget
from amlctl.core.environment import EnvironmentSpec
from amlctl.core.events import EventSink
from amlctl.core.job import AssetName
from amlctl.core.run import RunRecord


@dataclass(frozen=True)
class LogChunk:
    """A piece of a log. `cursor` is the byte offset to read on from; `is_final`: no more will ever come."""

    data: bytes
    cursor: int
    is_final: bool


@dataclass(frozen=True)
class EnvironmentInfo:
    """An environment of the workspace; `location` is a folder or a resource id, empty if not made yet."""

    id: str
    is_ready: bool
    location: str
    tool: str


@dataclass(frozen=True)
class RunFile:
    """A file that a run has left outside of the store; `modified_at` in seconds since 1970 UTC."""

    path: str
    size_bytes: int
    modified_at: float


class RunFiles(Protocol):
    """Those of one run. Thread-safe once `files` has returned."""

    def files(self) -> Sequence[RunFile]: ...

    def download(self, file: RunFile, target: Path) -> None:
        """Write the file to `target`, which then has its size and time."""
        ...


@runtime_checkable
class KeepsFiles(Protocol):
    """A workspace that keeps what runs leave behind by itself, also of those that know nothing of amlctl."""

    def run_files(self, run: str) -> RunFiles:
        """Raises NotFound."""
        ...


@dataclass(frozen=True)
class PresentTarget:
    """A compute target as it is there now: `state` is a word, `note` more of it or empty."""

    target: ClusterTarget
    state: str
    note: str = ""


class ComputeTargets(Protocol):
    """Those of a workspace that makes them. What is waited for may take minutes."""

    def list(self) -> Sequence[PresentTarget]:
        """By name."""
        ...

    def find(self, name: str) -> Optional[PresentTarget]: ...

    def check(self, target: ClusterTarget) -> None:
        """Raises SettingsError naming the line of its file that is wrong."""
        ...

    def create(self, target: ClusterTarget, sink: EventSink) -> PresentTarget:
        """Make it, or change the one of that name. Raises ServiceUnavailable (quota, failure), UsageError (refused)."""
        ...

    def start(self, name: str, sink: EventSink) -> PresentTarget:
        """Raises NotFound."""
        ...

    def stop(self, name: str, sink: EventSink) -> PresentTarget:
        """Raises NotFound."""
        ...

    def delete(self, name: str) -> None:
        """Raises NotFound, Conflict (in use)."""
        ...


@runtime_checkable
class ManagesCompute(Protocol):
    """A workspace whose compute targets are made and deleted."""

    @property
    def computes(self) -> ComputeTargets: ...


@dataclass(frozen=True)
class PresentAsset:
    """Something registered, with its version; `type` of data is `uri_file` or `uri_folder`, say, and `uri` where it
    lies."""

    asset: AssetName
    type: str = ""
    uri: str = ""


class RegisteredAssets(Protocol):
    """What is looked for by name, and made by nobody here; None where it is not there."""

    def environment(self, asset: AssetName) -> Optional[PresentAsset]: ...

    def data(self, asset: AssetName) -> Optional[PresentAsset]: ...

    def model(self, asset: AssetName) -> Optional[PresentAsset]: ...

    def register_mirror(self, name: str, store_url: str, dataset: str, snapshot: str, *, is_file: bool) -> AssetName:
        """Name the plain files of a mirrored dataset; the version is the snapshot. Raises Conflict, SettingsError."""
        ...

    def has_datastore(self, name: str) -> bool: ...


@runtime_checkable
class KeepsAssets(Protocol):
    """A workspace in which environments and data are registered."""

    @property
    def assets(self) -> RegisteredAssets: ...


class ProbeSteps(Protocol):
    """Where a probe notes what it tries. `id` names everything that it makes; `names` are hidden in the table."""

    id: str
    names: dict[str, str]

    def try_step(self, name: str, action: Callable[[], str]) -> bool:
        """Whether the action succeeded; it returns what was seen, and anything that it raises is noted."""
        ...

    def remove_at_end(self, name: str, action: Callable[[], str]) -> None:
        """Before the thing is made."""
        ...

    def tell(self, message: str) -> None: ...


@runtime_checkable
class ProbedWorkspace(Protocol):
    """A workspace in which a probe makes one of each thing."""

    def probe(self, steps: ProbeSteps, target: str) -> None:
        """`target` is the compute target of a job of a minute."""
        ...


@runtime_checkable
class TakesJobFiles(Protocol):
    """A workspace whose service takes job files of every type as they are: sweeps and pipelines, say."""

    def hand_over(self, record: RunRecord, path: Path) -> None:
        """Have the job of the file, under the record's id. Raises as `Workspace.start` does."""
        ...


class Workspace(Protocol):
    """One place where runs are made."""

    @property
    def name(self) -> str: ...

    def environment(self, spec: EnvironmentSpec) -> EnvironmentInfo:
        """Look the environment up without making it."""
        ...

    def check_environment(self, spec: EnvironmentSpec, sink: EventSink) -> None:
        """Find out, without making it, whether it can be made.

        Raises SettingsError (which line of its file, and why), ServiceUnavailable (that cannot be found out now).
        """
        ...

    def python(self, spec: EnvironmentSpec) -> Optional[tuple[int, int]]:
        """Major and minor version of the Python that a run in that environment will have; None where not known."""
        ...

    def prepare_environment(self, spec: EnvironmentSpec, sink: EventSink) -> EnvironmentInfo:
        """Make the environment, or find it. Raises SettingsError (cannot be made), ServiceUnavailable."""
        ...

    def expect_start(self) -> None:
        """A run will be started soon: load in the background what that takes."""
        ...

    def start(self, record: RunRecord, secrets: Mapping[str, str]) -> None:
        """Hand the run over; the store has its record. `secrets` are the variables whose value it does not hold.

        Raises Unconfirmed where it may have been taken all the same: whoever reads it later will see.
        """
        ...

    def read(self, run: str) -> RunRecord:
        """The run's record as it stands now. Raises NotFound."""
        ...

    def list_runs(self) -> list[RunRecord]:
        """Newest first."""
        ...

    def log_names(self, run: str) -> Sequence[str]:
        """Names that `read_log` takes; the first is the one to show by default."""
        ...

    def read_log(self, run: str, cursor: int, *, name: Optional[str] = None) -> LogChunk:
        """What was written since `cursor` (0: from the beginning), possibly nothing."""
        ...

    def log_end(self, run: str, *, name: Optional[str] = None) -> Optional[int]:
        """The offset at which that log ends now, so that it can be read from there backwards.

        None: only reading from the beginning will tell.
        """
        ...

    def wait(self, run: str, cursor: int, timeout_s: float, *, name: Optional[str] = None) -> None:
        """Return when the run's state or that log may have changed, at the latest after `timeout_s`."""
        ...

    def cancel(self, run: str) -> None:
        """Ask the run to end and keep its outputs so far. A run that ended already is left alone."""
        ...

    def delete(self, run: str) -> Sequence[str]:
        """Forget an ended run: record, logs, outputs. Returns what stays, and why, in words.

        Raises Conflict while it is going.
        """
        ...

    def checks(self, target: Optional[ClusterTarget]) -> Iterator[Check]:
        """What can be wrong with the workspace, tried out; nothing is changed. `target` is the one that runs use."""
        ...
