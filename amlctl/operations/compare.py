"""`runs compare`: what went into runs and what came out, against the first of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from functools import partial
from typing import Any, NamedTuple

from amlctl.core.diff import diff
from amlctl.core.events import Warned
from amlctl.core.job import RUNTIME_ARCHIVE
from amlctl.core.manifest import FileEntry
from amlctl.core.message import Command, count
from amlctl.core.metrics import as_json
from amlctl.core.phases import script_s
from amlctl.core.run import RunRecord
from amlctl.core.store_keys import code_index_key, code_prefix
from amlctl.errors import AmlctlError, IntegrityError, NotFound, UsageError
from amlctl.operations.context import Context
from amlctl.operations.metrics import metrics_of
from amlctl.operations.runs import RunAt, config_values_of, flattened
from amlctl.parallel import in_parallel
from amlctl.runs.tree import TreeFile, read_index
from amlctl.snapshots.manifests import read_manifest
from amlctl.stores.contract import Store

_COMPARED = ("mode", "compute", "distribution", "processes", "instances", "workspace", "experiment")
_MOST_PATCHED = 300
"""Files of a patch."""
_MOST_PATCHED_BYTES = 1 << 20
"""Of one file in a patch."""


@dataclass(frozen=True)
class Row:
    """One field; `values` are in the order of the runs, None if a run has none."""

    field: str
    values: tuple[Any, ...]

    @property
    def differs(self) -> bool:
        return any(value != self.values[0] for value in self.values)


@dataclass(frozen=True)
class MetricRow(Row):
    """A metric with its last values; NaN and infinity are text."""

    @property
    def deltas(self) -> tuple[float | None, ...]:
        """Against the first run; None where one of the two is not a number."""
        first = self.values[0]
        return tuple(
            None if isinstance(first, str) or isinstance(value, str) or None in (first, value) else value - first
            for value in self.values
        )


class FileChanges(NamedTuple):
    """Against the first run: paths of code, or packages of an environment."""

    added: Sequence[str] = ()
    modified: Sequence[str] = ()
    deleted: Sequence[str] = ()


class Counts(NamedTuple):
    """Files of a dataset against the first run's snapshot."""

    added: int = 0
    modified: int = 0
    deleted: int = 0


@dataclass(frozen=True)
class Comparison:
    """`rows` has all fields without metrics. Of `code`, `environment` and `data` (by dataset) there is one item for
    each run, None for the first one, for one that has the same as it, and where the store no longer has it.

    `patch` is the difference of the code as text, None unless it was asked for.
    """

    runs: tuple[str, ...]
    rows: tuple[Row, ...]
    metrics: tuple[MetricRow, ...]
    code: tuple[FileChanges | None, ...] = ()
    environment: tuple[FileChanges | None, ...] = ()
    data: Mapping[str, tuple[Counts | None, ...]] | None = None
    patch: Sequence[str] | None = None

    @property
    def differences(self) -> list[Row]:
        return [row for row in self.rows if row.differs]

    def to_json(self) -> dict[str, Any]:
        metrics = [Row(f"metrics.{row.field}", row.values) for row in self.metrics if row.differs]
        return {
            "runs": list(self.runs),
            "differences": [{"field": row.field, "values": list(row.values)} for row in [*self.differences, *metrics]],
            "metrics": [
                {"name": row.field, "values": list(row.values), "deltas": list(row.deltas)} for row in self.metrics
            ],
            "code": [_document(changes) for changes in self.code],
            "environment": [_document(changes) for changes in self.environment],
            "data": {name: [_document(one) for one in counts] for name, counts in (self.data or {}).items()},
            **({} if self.patch is None else {"patch": "".join(f"{line}\n" for line in self.patch)}),
        }


def _document(changes: FileChanges | Counts | None) -> dict[str, Any] | None:
    return None if changes is None else changes._asdict()


def compare(runs: Sequence[RunAt], *, with_patch: bool = False) -> Comparison:
    """What the store no longer has is not compared, with a warning. Raises UsageError (fewer than two), NotFound."""
    found = {one.run: one for one in runs}
    if len(found) < 2:
        raise UsageError("a comparison needs two different runs", hint=Command("runs", "compare", "@2", "@last"))
    contexts = [one.context for one in found.values()]
    records = [one.context.workspace.read(run) for run, one in found.items()]
    metrics = [metrics_of(context, record) for context, record in zip(contexts, records, strict=True)]
    columns = [{**_inputs(record), **_results(record)} for record in records]
    names = dict.fromkeys(name for one in metrics for name in one.last)
    stores = [context.store for context in contexts]
    reader = _Codes(stores, records, partial(_warn, contexts[0]))
    return Comparison(
        tuple(found),
        tuple(_rows(columns)),
        tuple(
            MetricRow(name, tuple(as_json(one.last[name]) if name in one.last else None for one in metrics))
            for name in names
        ),
        code=reader.changes(),
        environment=tuple(_environment(records[0], record) for record in records),
        data=_data(contexts[0], stores, records),
        patch=list(reader.patch()) if with_patch else None,
    )


def _warn(context: Context, message: str) -> None:
    context.sink(Warned(message))


def _rows(columns: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    for name in dict.fromkeys(name for column in columns for name in column):
        yield Row(name, tuple(column.get(name) for column in columns))


def _inputs(record: RunRecord) -> dict[str, Any]:
    spec = record.spec
    return {
        "script": spec.script,
        "arguments": " ".join(spec.arguments) or None,
        "command": spec.command,
        **{name: getattr(spec, name) for name in _COMPARED},
        **{f"variable {name}": value for name, value in spec.variables.items()},
        **{f"tag {name}": value for name, value in spec.tags.items()},
        "config": spec.config,
        **flattened("config.", config_values_of(record)),
        "code": spec.code,
        "git commit": (spec.git or {}).get("commit"),
        **{f"input {name}": next(iter(one.values()), None) for name, one in spec.inputs.items()},
        **{f"dataset {name}": snapshot for name, snapshot in spec.datasets.items()},
        "environment": spec.environment,
    }


def _results(record: RunRecord) -> dict[str, Any]:
    seconds = script_s(record)
    return {
        "status": record.status,
        "exit code": record.exit_code,
        "seconds": None if seconds is None else round(seconds, 3),
        **{f"published {name}": snapshot for name, snapshot in record.published.items()},
    }


class _Codes:
    """The code snapshots of runs. A snapshot that is lost or damaged is a warning, once."""

    def __init__(self, stores: Sequence[Store], records: Sequence[RunRecord], warn: Any) -> None:
        self._stores = stores
        self._ids = [record.spec.code for record in records]
        self._warn = warn
        self._files: dict[str, dict[str, TreeFile] | None] = {}

    def changes(self) -> tuple[FileChanges | None, ...]:
        return tuple(map(self._changes, range(len(self._ids))))

    def _changes(self, number: int) -> FileChanges | None:
        if self._ids[number] == self._ids[0]:
            return None
        old, new = self._tree(0), self._tree(number)
        if old is None or new is None:
            return None
        return FileChanges(
            sorted(new.keys() - old.keys()),
            sorted(path for path in old.keys() & new.keys() if not old[path].has_bytes_of(new[path])),
            sorted(old.keys() - new.keys()),
        )

    def _tree(self, number: int) -> dict[str, TreeFile] | None:
        code = self._ids[number]
        if code not in self._files:
            files = None
            if code:
                try:
                    files = read_index(self._stores[number], code_index_key(code))
                except IntegrityError as error:
                    self._warn(error.message)
                else:
                    if files is None:
                        self._warn(f"the store no longer has the code {code}")
            self._files[code] = None if files is None else {file.path: file for file in files}
        return self._files[code]

    def patch(self) -> Iterator[str]:
        """As `git diff` writes it, against the code of the first run."""
        for number, changes in enumerate(self.changes()):
            if changes is None:
                continue
            paths = sorted(path for some in changes for path in some if path != RUNTIME_ARCHIVE)
            if len(paths) > _MOST_PATCHED:
                self._warn(f"the patch has the first {_MOST_PATCHED} of {count(len(paths), 'file')}")
            read = partial(self._patch_of, number)
            for lines in in_parallel(read, paths[:_MOST_PATCHED], self._stores[number].concurrency):
                yield from lines

    def _patch_of(self, number: int, path: str) -> list[str]:
        old, new = self._text(0, path), self._text(number, path)
        if old is None or new is None:
            return [f"Binary or large files a/{path} and b/{path} differ"]
        names = (f"a/{path}" if old else "/dev/null", f"b/{path}" if new else "/dev/null")
        lines = unified_diff(old, new, *names, lineterm="")
        return [f"diff a/{path} b/{path}", *(line.rstrip("\n") for line in lines)]

    def _text(self, number: int, path: str) -> list[str] | None:
        """Lines; empty for a missing file, None for one that a patch does not show."""
        file = (self._tree(number) or {}).get(path)
        if file is None:
            return []
        if file.size_bytes > _MOST_PATCHED_BYTES:
            return None
        try:
            data = self._stores[number].get(code_prefix(self._ids[number]) + path)
        except NotFound:
            return None
        if b"\0" in data:
            return None
        return data.decode("utf-8", "replace").splitlines(keepends=True)


def _environment(first: RunRecord, record: RunRecord) -> FileChanges | None:
    """Lines of the environment's file; None where they are the same, or one of the two has no file."""
    old, new = first.spec.environment_content, record.spec.environment_content
    if old is None or new is None or record.spec.environment == first.spec.environment:
        return None
    before, after = _packages(old), _packages(new)
    return FileChanges(
        [line for line in after if line not in before], (), [line for line in before if line not in after]
    )


def _packages(content: str) -> dict[str, None]:
    lines = (line.strip().removeprefix("- ") for line in content.split("\n"))
    return dict.fromkeys(line for line in lines if line and not line.startswith("#"))


def _data(
    context: Context, stores: Sequence[Store], records: Sequence[RunRecord]
) -> dict[str, tuple[Counts | None, ...]]:
    """Of the datasets whose snapshots differ."""
    found = {}
    for name in dict.fromkeys(name for record in records for name in record.spec.datasets):
        if len({record.spec.datasets.get(name) for record in records}) == 1:
            continue
        try:
            found[name] = tuple(_counts(name, stores, records))
        except AmlctlError as error:
            _warn(context, f"{name}: files are not compared: {error.message}")
    return found


def _counts(name: str, stores: Sequence[Store], records: Sequence[RunRecord]) -> Iterator[Counts | None]:
    """Raises NotFound (a gc has removed a snapshot), IntegrityError."""

    def entries(number: int) -> Sequence[FileEntry] | None:
        key = records[number].spec.manifests.get(name)
        return None if key is None else read_manifest(stores[number], key).entries

    first = entries(0)
    yield None
    for number in range(1, len(records)):
        is_same = records[number].spec.datasets.get(name) == records[0].spec.datasets.get(name)
        other = None if is_same or first is None else entries(number)
        if first is None or other is None:
            yield None
        else:
            changes = diff(first, other)
            yield Counts(len(changes.added), len(changes.modified), len(changes.deleted))
