"""Runs: the record that describes one run completely.

The record is JSON at `runs/<run id>/record.json` in the store; the runtime starts from nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from typing import Any, Optional

from amlctl.core.distribution import Distribution
from amlctl.core.job import JobCommand
from amlctl.core.message import Command
from amlctl.core.run_schema import MAX_BYTES, wrong_field
from amlctl.core.run_state import RunState, is_final
from amlctl.core.secret_names import masked, masked_values
from amlctl.errors import IntegrityError, NotFound, UsageError


@dataclass
class RunRecord:
    """All that is known of one run. Times are ISO 8601 in UTC; durations are seconds.

    `variables` are the script's extra environment variables; a value that must stay secret is None here and
    travels beside the record; in `arguments` and `config_content` stands `<secret:NAME>` for it.
    `config_content` is the config to look at: a JSON document, or text. Where a script gets other bytes than those,
    `config_file` has them: `{"text", "encoding"}` or `{"base64"}` (see `core.run_config`).
    `manifests` names the manifest file (store key) of each dataset's snapshot.
    `heads` has the manifest that HEAD of each dataset to be produced named at submit (None: there was no HEAD), and
    `sync` how those are sent: `layout`, `pack_below`, `pack_size` (bytes), `ignore` (patterns), `ignore_files` (text by
    path below `data_blobs/`).
    `distribution` is None for a plain single process, else one of `core.distribution.DISTRIBUTIONS`; `processes` counts
    those on each of the `instances` (nodes). `node` is what a job file asks of Azure ML's nodes (see `CommandJob`).
    `command` is that of a job file, which `script` then names; `inputs`, `named_outputs` and `output_places` stand for
    its places (see `core.job.JobCommand`). None: `script` is run.
    `job_type` is that of a job file which Azure ML has as it is (`sweep`, `pipeline`); then `children` has `run`,
    `name` and `status` of each of its runs.
    `services` has the addresses of what a job file wants to run beside the command, such as Jupyter, while it runs.
    `waits_for` says why it is Queued, where that is known.
    `times` has the moment at which each state was first reached, in order.
    """

    run: str
    script: str
    name: str = ""
    status: str = RunState.NOT_STARTED.value
    waits_for: str = ""
    experiment: str = ""
    arguments: list[str] = field(default_factory=list)
    config: Optional[str] = None
    config_content: Any = None
    config_file: Optional[dict[str, str]] = None
    command: Optional[str] = None
    inputs: dict[str, dict[str, str]] = field(default_factory=dict)
    named_outputs: dict[str, str] = field(default_factory=dict)
    output_places: dict[str, dict[str, str]] = field(default_factory=dict)
    job_type: Optional[str] = None
    children: list[dict[str, str]] = field(default_factory=list)
    services: dict[str, str] = field(default_factory=dict)
    description: str = ""
    code: str = ""
    datasets: dict[str, str] = field(default_factory=dict)
    manifests: dict[str, str] = field(default_factory=dict)
    produces: list[str] = field(default_factory=list)
    published: dict[str, str] = field(default_factory=dict)
    heads: dict[str, Optional[str]] = field(default_factory=dict)
    sync: dict[str, Any] = field(default_factory=dict)
    mode: str = "mount"
    environment: str = ""
    environment_content: Optional[str] = None
    variables: dict[str, Optional[str]] = field(default_factory=dict)
    compute: str = "local"
    workspace: str = "local"
    distribution: Optional[str] = None
    processes: int = 1
    instances: int = 1
    node: dict[str, Any] = field(default_factory=dict)
    timeout_s: Optional[float] = None
    tags: dict[str, str] = field(default_factory=dict)
    git: Optional[dict[str, Any]] = None
    command_line: list[str] = field(default_factory=list)
    user: str = ""
    host: str = ""
    from_run: Optional[str] = None
    created_at: str = ""
    times: dict[str, str] = field(default_factory=dict)
    exit_code: Optional[int] = None
    error: Optional[dict[str, str]] = None
    studio_url: Optional[str] = None
    outputs: str = ""

    @property
    def is_final(self) -> bool:
        return is_final(self.status)

    @property
    def layout(self) -> Distribution:
        """Which processes the run consists of."""
        return Distribution(self.distribution, self.processes, self.instances)

    @property
    def job(self) -> Optional[JobCommand]:
        """What is run instead of a script."""
        return (
            None
            if self.command is None
            else JobCommand(self.command, self.inputs, self.named_outputs, self.output_places)
        )

    def reached(self, state: RunState, now: datetime) -> None:
        """Move to `state`. A final state is never left: what comes after it is ignored."""
        if self.is_final:
            return
        self.status, self.waits_for = state.value, ""
        self.times.setdefault(state.value, now.isoformat(timespec="milliseconds"))

    def failed(self, kind: str, message: str, now: datetime, *, exit_code: Optional[int] = None) -> None:
        """Move to Failed with a reason, unless the run ended already."""
        if self.is_final:
            return
        self.error = {"kind": kind, "message": message}
        if exit_code is not None:
            self.exit_code = exit_code
        self.reached(RunState.FAILED, now)

    def to_json(self) -> dict[str, Any]:
        """As it is written anywhere: no field of free text shows a secret."""
        document = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("name", "waits_for", "description", "environment_content"):
            document[name] = None if document[name] is None else masked(document[name])
        document["tags"] = masked_values(self.tags)
        document["command_line"] = [masked(word) for word in self.command_line]
        document["arguments"] = [masked(word) for word in self.arguments]
        if self.error is not None:
            document["error"] = {name: masked(text) for name, text in self.error.items()}
        return document

    @classmethod
    def from_json(cls, document: Any, run: Optional[str] = None) -> RunRecord:
        """`run` is the id that the record must have. Unknown keys of newer versions are dropped.

        Raises IntegrityError naming the field that breaks its rule (see `run_schema`).
        """
        what = wrong_field(document, run) if isinstance(document, Mapping) else "it is not a JSON object"
        if what:
            raise IntegrityError(f"the record of run {run or '(unknown)'} is damaged: {what}")
        return cls(**{key: value for key, value in document.items() if key in _FIELDS})

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


_FIELDS = frozenset(one.name for one in fields(RunRecord))


def newest_first(records: Iterable[RunRecord], made: Sequence[str]) -> list[RunRecord]:
    """Newest first by the order of making. `made` are ids in the order in which runs were made from here.

    A run was not made after the one that was made next from here, so a time that says so is wrong and is not believed;
    runs of others stand among them by their times.
    """
    place = {run: number for number, run in enumerate(made)}
    found = sorted(records, key=lambda record: place.get(record.run, -1), reverse=True)
    keys: dict[str, tuple[str, int, str]] = {}
    latest = "9999"
    for record in found:
        number = place.get(record.run, -1)
        at = _in_utc(record.created_at)
        if number >= 0 and at:
            latest = at = min(at, latest)
        keys[record.run] = (at, number, record.run)
    return sorted(found, key=lambda record: keys[record.run], reverse=True)


def _in_utc(time: str) -> str:
    try:
        at = datetime.fromisoformat(time)
    except ValueError:
        return time
    return at.astimezone(timezone.utc).isoformat(timespec="microseconds") if at.tzinfo else time


def find_run(reference: str, ids_newest_first: Sequence[str]) -> str:
    """The run id that RUN names: an id, a unique prefix of one, `@last` or `@N` (N-th from the newest).

    Raises NotFound or, for an ambiguous prefix, UsageError.
    """
    if reference.startswith("@"):
        digits = reference[1:]
        is_number = digits.isascii() and digits.isdigit() and len(digits) < 10
        position = 1 if reference == "@last" else int(digits) if is_number else 0
        if position < 1:
            raise UsageError(f"{reference!r} names no run", hint="use a run id, @last, or @2 for the one before")
        if position > len(ids_newest_first):
            count = len(ids_newest_first)
            raise NotFound(f"{reference} is out of range: there are {count} runs", hint=Command("runs"))
        return ids_newest_first[position - 1]
    if reference in ids_newest_first:
        return reference
    matches = [run for run in ids_newest_first if reference and run.startswith(reference)]
    if not matches:
        raise NotFound(f"no run {reference!r}", hint=Command("runs"))
    if len(matches) > 1:
        raise UsageError(
            f"{reference!r} is the beginning of {len(matches)} runs",
            hint="type more of it",
            details=matches[:10],
        )
    return matches[0]


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
