"""`Workspace`: where runs execute. The local one and Azure ML keep the same promises.

- The caller chooses a run's id; `start` with an existing id does not start it again.
- A run continues when the caller's process ends. Its record is up to date whenever it is read: a run without a
  supervisor is Failed, with the reason, and never Running forever.
- A log is read by offset: no byte is lost or repeated, however often a reader returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Protocol

if TYPE_CHECKING:
    from amlctl.core.compute import ClusterTarget
    from amlctl.core.environment import EnvironmentSpec
    from amlctl.core.events import EventSink, Usage
    from amlctl.core.job import AssetName
    from amlctl.core.metrics import Point
    from amlctl.core.run import RunRecord, RunSpec
    from amlctl.core.sweep import Sweep
    from amlctl.stores.contract import Store


@dataclass(frozen=True)
class LogChunk:
    """Part of a log. `cursor` is the byte offset to continue from; `is_final`: the log is complete."""

    data: bytes
    cursor: int
    is_final: bool


@dataclass(frozen=True)
class EnvironmentInfo:
    """An environment of the workspace; `location` is a folder or a resource id, empty before it is made."""

    id: str
    is_ready: bool
    location: str
    tool: str


@dataclass(frozen=True)
class KeptEnvironment:
    """An environment on this machine. `lists` are the packages that were asked for, masked; `used_at` is in seconds
    since 1970 UTC; `is_in_use`: a run has it now; `is_whole`: it was finished."""

    id: str
    location: str
    tool: str
    python: str
    packages: int
    lists: Sequence[str]
    size_bytes: int
    used_at: float
    is_in_use: bool
    is_whole: bool


class EnvironmentCache(Protocol):
    """The environments on this machine, of all projects."""

    def list(self) -> Sequence[KeptEnvironment]:
        """Last used first."""
        ...

    def remove(self, environment: str) -> None:
        """Raises Conflict (in use, or being made), RightsError."""
        ...


@dataclass(frozen=True)
class RunFile:
    """A file of a run that no list of outputs names: its bytes are the value of `key` in `store`. `modified_at` is in
    seconds since 1970 UTC."""

    path: str
    size_bytes: int
    modified_at: float
    store: Store
    key: str


@dataclass(frozen=True)
class PresentTarget:
    """A compute target as it is now: `state` is a word, `note` a detail or empty."""

    target: ClusterTarget
    state: str
    note: str = ""


class ComputeTargets(Protocol):
    """Of a workspace that creates them. Waits may take minutes, and have a limit."""

    def list(self) -> Sequence[PresentTarget]:
        """By name."""
        ...

    def find(self, name: str) -> Optional[PresentTarget]: ...

    def check(self, target: ClusterTarget) -> None:
        """Raises SettingsError with the wrong line of its file."""
        ...

    def create(self, target: ClusterTarget, sink: EventSink) -> PresentTarget:
        """Create or change it. Raises ServiceUnavailable (quota, failure, timeout), UsageError (refused)."""
        ...

    def start(self, name: str, sink: EventSink) -> PresentTarget:
        """Raises NotFound."""
        ...

    def stop(self, name: str, sink: EventSink) -> PresentTarget:
        """Raises NotFound."""
        ...

    def delete(self, name: str, sink: EventSink) -> None:
        """Raises NotFound, Conflict (in use)."""
        ...


@dataclass(frozen=True)
class PresentAsset:
    """A registered asset with its version; `type` of data is `uri_file` or `uri_folder`, say, and `uri` its address."""

    asset: AssetName
    type: str = ""
    uri: str = ""


class RegisteredAssets(Protocol):
    """Lookups by name return None for a missing asset."""

    def environment(self, asset: AssetName) -> Optional[PresentAsset]: ...

    def data(self, asset: AssetName) -> Optional[PresentAsset]: ...

    def model(self, asset: AssetName) -> Optional[PresentAsset]: ...

    def register_mirror(self, name: str, store_url: str, dataset: str, snapshot: str, *, is_file: bool) -> AssetName:
        """The plain files of a mirrored dataset; the version is the snapshot. Raises Conflict, SettingsError."""
        ...

    def has_datastore(self, name: str) -> bool: ...


class ProbeSteps(Protocol):
    """The log of a probe. `id` names everything that it creates; `names` are hidden in the table."""

    id: str
    names: dict[str, str]

    def try_step(self, name: str, action: Callable[[], str]) -> bool:
        """Whether the action succeeded; its result, and any error, is logged."""
        ...

    def remove_at_end(self, name: str, action: Callable[[], str]) -> None:
        """Call it before the thing is created."""
        ...

    def tell(self, message: str) -> None: ...


class TrackedMetrics(Protocol):
    """What scripts have sent to a server while they run."""

    def values(self, run: str) -> Mapping[str, float]:
        """The last value of each; empty for an unknown run. Raises RightsError, ServiceUnavailable."""
        ...

    def series(self, run: str, names: Sequence[str]) -> Mapping[str, Sequence[Point]]:
        """Raises RightsError, ServiceUnavailable."""
        ...


@dataclass(frozen=True)
class Check:
    """One finding; `hint` is what to type or do, and empty if there is nothing to do."""

    name: str
    ok: bool
    message: str
    hint: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Service(Protocol):
    """What a workspace has besides that is a service, as Azure ML: compute targets that can be created and deleted,
    registered environments and data, metrics that scripts send while they run, and files of runs, also of runs without
    amlctl."""

    @property
    def computes(self) -> ComputeTargets: ...

    @property
    def assets(self) -> RegisteredAssets: ...

    @property
    def tracked(self) -> TrackedMetrics: ...

    def run_files(self, run: str) -> Sequence[RunFile]:
        """Raises NotFound, RightsError, ServiceUnavailable."""
        ...

    def check_experiment(self, name: str) -> None:
        """Raises UsageError for a name that the service does not take."""
        ...

    def check_limits(self, spec: RunSpec, sweep: Optional[Sweep], sink: EventSink) -> None:
        """Warns of what may be more than the service takes of a run, or of a sweep. Raises UsageError for what is."""
        ...

    def hand_over(self, record: RunRecord, path: Path) -> None:
        """Submit a job file of any type, a sweep or pipeline, say, as it is, under the record's id. Raises what
        `Workspace.start` raises."""
        ...

    def probe(self, steps: ProbeSteps, target: str) -> None:
        """Create one of each thing. `target` is the compute target of a job of one minute."""
        ...


class Workspace(Protocol):
    """A place where runs execute.

    `shows_variables`: others with access to the workspace can read the environment variables of a run. `shows_usage`:
    it sees the processes of its runs.
    """

    shows_variables: bool
    shows_usage: bool

    @property
    def service(self) -> Optional[Service]:
        """None on this machine."""
        ...

    @property
    def name(self) -> str: ...

    def environment(self, spec: EnvironmentSpec) -> EnvironmentInfo:
        """Look it up without making it."""
        ...

    def check_environment(self, spec: EnvironmentSpec, sink: EventSink) -> None:
        """Check without making it whether it can be made.

        Raises SettingsError (which line of its file, and why), ServiceUnavailable (cannot be checked now).
        """
        ...

    def python(self, spec: EnvironmentSpec) -> Optional[tuple[int, int]]:
        """Major and minor version of the environment's Python; None if unknown."""
        ...

    def has_module(self, spec: EnvironmentSpec, module: str) -> Optional[bool]:
        """Whether the environment will have it; None where that is not known."""
        ...

    def prepare_environment(self, spec: EnvironmentSpec, sink: EventSink) -> EnvironmentInfo:
        """Make the environment, or find it. Raises SettingsError (cannot be made), ServiceUnavailable."""
        ...

    def expect_start(self) -> None:
        """A run will be started soon: load what that takes in the background."""
        ...

    def start(self, record: RunRecord, secrets: Mapping[str, str]) -> None:
        """Start the run, whose record is in the store. `secrets` are the variables whose values are not in the record.

        Raises Unconfirmed if it may have been accepted nevertheless, which `read` shows later.
        """
        ...

    def start_sweep(self, parent: RunRecord, children: Sequence[RunRecord], secrets: Mapping[str, str]) -> None:
        """Start a sweep, whose parent is in the store: its runs, in order, at most so many at a time as its spec says.
        It continues when the caller's process ends. The children of the parent's record are those that exist already;
        `read` has all of them.

        Raises as `start` does.
        """
        ...

    def read(self, run: str) -> RunRecord:
        """The run's current record. Raises NotFound."""
        ...

    def list_runs(self) -> list[RunRecord]:
        """Newest first."""
        ...

    def log_names(self, run: str) -> Sequence[str]:
        """Names that `read_log` takes; the first is the one to show by default."""
        ...

    def read_log(self, run: str, cursor: int, *, name: Optional[str] = None) -> LogChunk:
        """The bytes since `cursor` (0: from the beginning), possibly none."""
        ...

    def log_end(self, run: str, *, name: Optional[str] = None) -> Optional[int]:
        """The current size of that log, so that it can be read backwards; None if only reading it from the beginning
        tells."""
        ...

    def wait(self, run: str, cursor: int, timeout_s: float, *, name: Optional[str] = None) -> None:
        """Return when the run's state or that log may have changed, at most after `timeout_s`."""
        ...

    def usage(self, run: str) -> Usage:
        """What its processes use now, as far as that is seen."""
        ...

    def cancel(self, run: str) -> None:
        """Ask the run to end; its outputs so far are kept. Ignores a run that has ended."""
        ...

    def delete(self, run: str) -> Sequence[str]:
        """Delete an ended run: record, logs, outputs. Returns what stays, and why.

        Raises Conflict while it is active.
        """
        ...

    def checks(self, target: Optional[ClusterTarget]) -> Iterator[Check]:
        """Check everything that can be wrong with the workspace, without changes. `target` is the one that runs use."""
        ...
