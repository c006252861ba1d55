"""Runs: what one does (`RunSpec`), the record of what became of it, and how a spec is merged from several sources.

The record is JSON at `runs/<run id>/record.json` in the store; the runtime starts from nothing else.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Optional

from amlctl.core.hidden_values import filled, filled_text
from amlctl.core.job import Distribution
from amlctl.core.run_schema import MAX_BYTES, RULES, parse_time, wrong_field
from amlctl.core.run_state import RunState, is_final
from amlctl.core.secret_names import masked, masked_values
from amlctl.errors import (
    AmlctlError,
    IntegrityError,
    LoginError,
    NotFound,
    RightsError,
    ServiceUnavailable,
    SettingsError,
    StoreGone,
    UsageError,
)

if TYPE_CHECKING:
    from amlctl.core.settings import Mode


@dataclass(frozen=True)
class RunSpec:
    """Everything that decides what a run does. Durations are seconds.

    What runs: `script` with `arguments` and a config, or the `command` of the job file that `script` names then.
    `config_content` is the config to look at: a JSON document, or text. Where a script gets other bytes than those,
    `config_file` has them: `{"text", "encoding"}` or `{"base64"}` (see `config_bytes`). `is_config_positional`: the
    script gets its path alone, as in the first amlctl, and not as `--config PATH`.

    `inputs` and `named_outputs` fill the placeholders of the command, by name. An input is `{"value": text}`,
    `{"dataset": name, "type"}`, or `{"asset": path, "type", "mode"}` for data that Azure ML provides on its nodes: an
    asset (`azureml:NAME:VERSION`) or an address. An output has its type; one that Azure ML stores, and not the runtime,
    is in `output_places` with `mode`, and `uri`, `name`, `version` if wanted, or `dataset`, if it is a copy of what the
    run produces. `job_type` is that of a job file which Azure ML takes as it is (`sweep`, `pipeline`).

    `sweep` is not empty for the parent of a sweep (`core.sweep`), whose `job_type` is `sweep` as well: `parallel` runs
    at a time (None: as many as the target has slots), the `metric` that decides which is best, empty for any, and the
    number of `runs`. These have its id as `parent` and what is theirs alone as `combination`.

    `variables` are extra environment variables; a value that must stay secret is None here and travels beside the
    record; `arguments`, `config_content` and `command` have `<secret:NAME>` instead.

    `datasets` has the snapshot of each dataset that the run reads, `manifests` the store key of its manifest. `heads`
    has the manifest that HEAD of each dataset in `produces` named at submit (None: HEAD did not exist), and `sync` how
    those are sent: `layout`, `pack_below`, `pack_size` (bytes), `ignore` (patterns), `ignore_files` (text by path below
    `data_blobs/`).

    `distribution` is None for a plain single process, else one of `core.job.DISTRIBUTIONS`; `processes` counts
    those on each of the `instances` (nodes). `node` is what a job file asks of Azure ML's nodes, in its own words.
    """

    script: str = ""
    name: str = ""
    experiment: str = ""
    arguments: Sequence[str] = ()
    config: Optional[str] = None
    config_content: Any = None
    config_file: Optional[Mapping[str, str]] = None
    is_config_positional: bool = False
    command: Optional[str] = None
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    named_outputs: Mapping[str, str] = field(default_factory=dict)
    output_places: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    job_type: Optional[str] = None
    sweep: Mapping[str, Any] = field(default_factory=dict)
    parent: Optional[str] = None
    combination: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    code: str = ""
    datasets: Mapping[str, str] = field(default_factory=dict)
    manifests: Mapping[str, str] = field(default_factory=dict)
    produces: Sequence[str] = ()
    heads: Mapping[str, Optional[str]] = field(default_factory=dict)
    sync: Mapping[str, Any] = field(default_factory=dict)
    mode: Mode = "mount"
    environment: str = ""
    environment_content: Optional[str] = None
    variables: Mapping[str, Optional[str]] = field(default_factory=dict)
    compute: str = "local"
    workspace: str = "local"
    distribution: Optional[str] = None
    processes: int = 1
    instances: int = 1
    node: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: Optional[float] = None
    tags: Mapping[str, str] = field(default_factory=dict)
    git: Optional[Mapping[str, Any]] = None
    from_run: Optional[str] = None

    @property
    def process_group(self) -> Distribution:
        """Which processes the run consists of."""
        return Distribution(self.distribution, self.processes, self.instances)

    def config_arguments(self, path: str) -> list[str]:
        """How the script gets the path of its config."""
        return [path] if self.is_config_positional else ["--config", path]

    @property
    def assets(self) -> Mapping[str, Mapping[str, str]]:
        """The inputs that Azure ML provides on its nodes."""
        return {name: one for name, one in self.inputs.items() if "asset" in one}


_STARTING_S = 600.0


@dataclass
class RunRecord:
    """A run: what it does, who made it, and how far it is. Times are ISO 8601 in UTC.

    `times` has the moment at which each state was first reached, in order; `phases` when each began, as `name` and
    `at`, with a `note` (`core.phases`). `waits_for` says why it is Queued, where
    that is known. `children` has `run`, `name` and `status` of each run of a sweep or pipeline. `services` has the
    addresses of what a job file wants to run beside the command, such as Jupyter, while it runs. `published` has the
    new snapshot of each dataset that the run has produced. `metrics` has the last value of each, once the run has ended
    (`core.metrics.Metrics.kept`), and `resources` what its processes have used (`core.resources.Resources.summary`).
    """

    run: str
    spec: RunSpec = RunSpec()
    status: str = RunState.NOT_STARTED
    waits_for: str = ""
    children: list[dict[str, str]] = field(default_factory=list)
    services: dict[str, str] = field(default_factory=dict)
    published: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    command_line: Sequence[str] = ()
    user: str = ""
    host: str = ""
    created_at: str = ""
    times: dict[str, str] = field(default_factory=dict)
    phases: list[dict[str, str]] = field(default_factory=list)
    resources: dict[str, float] = field(default_factory=dict)
    exit_code: Optional[int] = None
    error: Optional[dict[str, str]] = None
    studio_url: Optional[str] = None
    outputs: str = ""

    @property
    def is_final(self) -> bool:
        return is_final(self.status)

    @property
    def made_by(self) -> str:
        """`anna@laptop`, as far as it is recorded."""
        return "@".join(filter(None, (self.user, self.host)))

    @property
    def may_change(self) -> bool:
        """Whether its workspace may know more by now: it is not final, or perhaps Failed only until its store can be
        written to."""
        return not self.is_final or (self.error or {}).get("kind") in STORE_FAILURES

    def is_overdue(self, now: datetime) -> bool:
        """Whether it was recorded so long ago, and has not started, that the command that was to start it is dead."""
        if self.status != RunState.NOT_STARTED or not self.created_at:
            return False
        return (now - parse_time(self.created_at)).total_seconds() > _STARTING_S

    def reached(self, state: RunState, now: datetime) -> None:
        """Move to `state`. A final state is never left: what comes after it is ignored."""
        if self.is_final:
            return
        self.status, self.waits_for = state, ""
        self.times.setdefault(state, now.isoformat(timespec="milliseconds"))

    def failed(self, kind: str, message: str, now: datetime) -> None:
        """Move to Failed with a reason, unless the run has finished already."""
        if self.is_final:
            return
        self.error = {"kind": kind, "message": message}
        self.reached(RunState.FAILED, now)

    def to_json(self) -> dict[str, Any]:
        """One flat object, in the order of `run_schema.RULES`. No field of free text shows a secret."""
        document = {name: getattr(self.spec if name in _SPEC_FIELDS else self, name) for name in RULES}
        for name in ("name", "waits_for", "description", "environment_content"):
            document[name] = None if document[name] is None else masked(document[name])
        document["tags"] = masked_values(self.spec.tags)
        for name in ("command_line", "arguments"):
            document[name] = [masked(word) for word in document[name]]
        document["produces"] = list(self.spec.produces)
        if self.error is not None:
            document["error"] = {name: masked(text) for name, text in self.error.items()}
        return document

    @classmethod
    def from_fields(cls, document: Mapping[str, Any]) -> RunRecord:
        """From a flat object, unchecked. Unknown keys of newer versions are dropped."""
        known = {name: value for name, value in document.items() if name in RULES}
        spec = RunSpec(**{name: known.pop(name) for name in list(known) if name in _SPEC_FIELDS})
        return cls(spec=spec, **known)

    @classmethod
    def from_json(cls, document: Any, run: Optional[str] = None) -> RunRecord:
        """`run` is the id that the record must have. Raises IntegrityError naming the field that breaks its rule."""
        what = wrong_field(document, run) if isinstance(document, Mapping) else "it is not a JSON object"
        if what:
            raise IntegrityError(f"the record of run {run or '(unknown)'} is damaged: {what}")
        return cls.from_fields(document)

    @classmethod
    def from_bytes(cls, data: bytes, run: str) -> RunRecord:
        """Raises IntegrityError: damaged, or not the record of `run`."""
        if len(data) > MAX_BYTES:
            raise IntegrityError(f"the record of run {run} is damaged: it has more than {MAX_BYTES >> 20} MiB")
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise IntegrityError(f"the record of run {run} is damaged: it is not JSON") from error
        return cls.from_json(document, run)

    def to_bytes(self) -> bytes:
        return (json.dumps(self.to_json(), indent=2) + "\n").encode()


STORE_FAILURES = frozenset(one.kind for one in (StoreGone, ServiceUnavailable, LoginError, RightsError))
_SPEC_FIELDS = frozenset(one.name for one in fields(RunSpec))

CONFIG_ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")


def config_bytes(spec: RunSpec, secrets: Optional[Mapping[str, str]]) -> bytes:
    """The config file that the script gets; without secrets (None) their placeholders stay. Raises SettingsError."""
    kept, content = spec.config_file, spec.config_content
    if kept is not None:
        return _kept_bytes(kept, secrets)
    if isinstance(content, str) and not (spec.config or "").endswith(".json"):
        return (content if secrets is None else filled_text(content, secrets)).encode("utf-8", "surrogateescape")
    document = content if secrets is None else filled(content, secrets)
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def _kept_bytes(kept: Mapping[str, str], secrets: Optional[Mapping[str, str]]) -> bytes:
    try:
        if "base64" in kept:
            return base64.b64decode(kept["base64"], validate=True)
        if kept["encoding"] in CONFIG_ENCODINGS:
            text = kept["text"] if secrets is None else filled_text(kept["text"], secrets)
            return text.encode(kept["encoding"])
    except (KeyError, ValueError, AttributeError, TypeError):
        pass
    raise SettingsError("the config in the record of the run is damaged", hint="submit it again")


LONGEST_DURATION_S = 10_000 * 86400.0
"""Longer than any machine stays up; no clock, wait or service overflows with it."""


def parse_duration_s(text: str) -> float:
    """Seconds of `90s`, `15m`, `2h` or `1d`; a number alone could mean any of these. Raises UsageError."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    try:
        seconds = float(text[:-1]) * units[text[-1:]]
    except (ValueError, KeyError):
        seconds = -1.0
    if not 0 < seconds <= LONGEST_DURATION_S:
        wanted = "expected a number above 0 with a unit" if not seconds > LONGEST_DURATION_S else "at most 10000d"
        raise UsageError(f"Invalid duration {text!r}: {wanted}", hint="use 90s, 15m, 2h or 1d")
    return seconds


# --- where a spec comes from -------------------------------------------------------------------------------
#
# The order of the sources, from the strongest: the command line, a job file, the run that is repeated, the script's
# inline block, the settings. It holds for each field by itself; `variables` and `tags` are merged name by name.

_BY_NAME = frozenset({"variables", "tags"})
_BELONGS_TO = {
    "config_content": "config",
    "config_file": "config",
    "is_config_positional": "config",
    "environment_content": "environment",
    "manifests": "datasets",
}
"""These fields come from the source of another one, or from none."""


@dataclass(frozen=True)
class PartialSpec:
    """What one source says: values of fields of `RunSpec`, by name; None: it says nothing of that field.

    `lines` has the `file:line` of a field, or of a part of one (`inputs.data`).
    """

    source: str
    values: Mapping[str, Any]
    lines: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MergedSpec:
    """`sources` names the source of each field that has one; `lines` are those of the values that won."""

    spec: RunSpec
    sources: Mapping[str, str]
    lines: Mapping[str, str]

    def at(self, key: str) -> AbstractContextManager[None]:
        """An error about that value begins with its `file:line`, if it has one."""
        return at_line(self.lines.get(key, ""))


@contextmanager
def at_line(line: str) -> Iterator[None]:
    """An error about a value begins with the `file:line` of it; empty: it has none."""
    try:
        yield
    except AmlctlError as error:
        if not line or not isinstance(error, (NotFound, SettingsError, UsageError)):
            raise
        raise type(error)(f"{line}: {error.message}", hint=error.hint, details=error.details) from error


def merge(sources: Iterable[PartialSpec]) -> MergedSpec:
    """`sources` from the strongest to the weakest."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    lines: dict[str, str] = {}
    for one in sources:
        for name, value in one.values.items():
            if value is None or (name in _BY_NAME and not value):
                continue
            if name in _BY_NAME:
                values[name] = {**value, **values.get(name, {})}
            elif name not in values:
                values[name] = value
            origins.setdefault(name, one.source)
        lines.update(
            (key, line)
            for key, line in one.lines.items()
            if key not in lines and origins.get(key.partition(".")[0], one.source) == one.source
        )
    for name, main in _BELONGS_TO.items():
        if origins.get(name) != origins.get(main):
            values.pop(name, None)
            origins.pop(name, None)
    return MergedSpec(RunSpec(**values), origins, lines)
