"""`runs report`: everything that one page shows of runs, read within bounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from amlctl.core.events import Warned
from amlctl.core.message import count, size
from amlctl.core.metrics import Metrics, Point
from amlctl.core.resources import Resources
from amlctl.core.run import RunRecord
from amlctl.core.secret_names import masked
from amlctl.core.store_keys import outputs_index_key, outputs_prefix
from amlctl.errors import AmlctlError, NotFound
from amlctl.operations.compare import Comparison, compare
from amlctl.operations.context import Context
from amlctl.operations.logs import log_pieces
from amlctl.operations.metrics import metrics_of, series_of
from amlctl.operations.runs import RunAt, config_values_of, flattened
from amlctl.parallel import in_parallel
from amlctl.runs.records import read_resources
from amlctl.runs.tree import TreeFile, read_index, stored_key
from amlctl.stores.contract import Store

MOST_SERIES = 40
"""Plots on a page."""
_MOST_PICTURES = 24
"""Of each run."""
_MOST_PICTURE_BYTES = 2 << 20
_MOST_BYTES = 12 << 20
"""Of all pictures of a run: a page that is mailed should not be larger."""
_MOST_FILES = 100
"""Outputs that are listed."""
_MOST_LINES = 2000
_MOST_LINE = 2000
"""Characters of a line of the log."""
_TYPES = {
    ".png": ("image/png", b"\x89PNG\r\n\x1a\n"),
    ".jpg": ("image/jpeg", b"\xff\xd8\xff"),
    ".jpeg": ("image/jpeg", b"\xff\xd8\xff"),
    ".gif": ("image/gif", b"GIF8"),
    ".webp": ("image/webp", b"RIFF"),
    ".svg": ("image/svg+xml", b"<"),
}
"""By suffix, the type of a picture, and how its file begins."""


class Picture(NamedTuple):
    path: str
    media_type: str
    data: bytes


class OutputFile(NamedTuple):
    path: str
    size_bytes: int


@dataclass(frozen=True)
class RunPage:
    """`log` has the last lines; `has_earlier_lines`: there are more before them. `notes` say what is not shown."""

    record: RunRecord
    config: Mapping[str, Any]
    metrics: Metrics
    series: Mapping[str, Sequence[Point]]
    resources: Resources
    pictures: Sequence[Picture] = ()
    files: Sequence[OutputFile] = ()
    log: Sequence[str] = ()
    has_earlier_lines: bool = False
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """`comparison` is None for a single run."""

    runs: Sequence[RunPage]
    comparison: Comparison | None = None


def report(runs: Sequence[RunAt]) -> Report:
    """What cannot be read is missing on the page, with a note there. Raises NotFound."""
    unique = list({one.run: one for one in runs}.values())
    pages = [_page(one.context, one.run) for one in unique]
    return Report(pages, compare(unique) if len(unique) > 1 else None)


def _page(context: Context, run: str) -> RunPage:
    record = context.workspace.read(run)
    metrics = metrics_of(context, record)
    outputs = _Outputs()
    notes: list[str] = []
    series: Mapping[str, Sequence[Point]] = {}
    lines: Sequence[str] = ()
    resources = Resources()
    with _noted(notes, "series of metrics are"):
        series = series_of(context, record, metrics, list(metrics.last)[:MOST_SERIES])
    with _noted(notes, "resources are"):
        resources = read_resources(context.store, run)
    with _noted(notes, "outputs are"):
        outputs = _outputs(context.store, run)
    with _noted(notes, "the log is"):
        try:
            lines = _last_lines(context, run)
        except NotFound:
            notes.append("the run has no log")
    for note in notes:
        context.sink(Warned(f"run {run}: {note}"))
    return RunPage(
        record,
        flattened("", config_values_of(record)),
        metrics,
        series,
        resources,
        outputs.pictures,
        outputs.files,
        lines[-_MOST_LINES:],
        len(lines) > _MOST_LINES,
        [*notes, *outputs.notes],
    )


@contextmanager
def _noted(notes: list[str], what: str) -> Iterator[None]:
    try:
        yield
    except AmlctlError as error:
        notes.append(f"{what} not shown: {error.message}")


class _Outputs(NamedTuple):
    """Of the first node."""

    pictures: Sequence[Picture] = ()
    files: Sequence[OutputFile] = ()
    notes: Sequence[str] = ()


def _outputs(store: Store, run: str) -> _Outputs:
    """Raises IntegrityError, ServiceUnavailable."""
    index = [file for file in read_index(store, outputs_index_key(run)) or () if not file.is_folder]
    notes = [f"{len(index) - _MOST_FILES} more outputs are not listed"] if len(index) > _MOST_FILES else []
    wanted: list[TreeFile] = []
    total, left_out = 0, 0
    for file in sorted(index, key=lambda file: file.path):
        if PurePosixPath(file.path).suffix.lower() not in _TYPES:
            continue
        is_fit = file.size_bytes <= _MOST_PICTURE_BYTES and total + file.size_bytes <= _MOST_BYTES
        if is_fit and len(wanted) < _MOST_PICTURES:
            wanted.append(file)
            total += file.size_bytes
        else:
            left_out += 1
    if left_out:
        limits = f"{_MOST_PICTURES}, of up to {size(_MOST_PICTURE_BYTES)} each and {size(_MOST_BYTES)} together"
        notes.append(f"{count(left_out, 'more picture')} not shown: a page has at most {limits}")
    found = in_parallel(partial(_picture, store, run), wanted, store.concurrency)
    files = [OutputFile(file.path, file.size_bytes) for file in index[:_MOST_FILES]]
    return _Outputs([picture for picture in found if picture is not None], files, notes)


def _picture(store: Store, run: str, file: TreeFile) -> Picture | None:
    """None for a file that is not what its name says, or was removed by the run."""
    media_type, start = _TYPES[PurePosixPath(file.path).suffix.lower()]
    try:
        data = store.get(stored_key(outputs_prefix(run), file), length=_MOST_PICTURE_BYTES)
    except NotFound:
        return None
    return Picture(file.path, media_type, data) if data.lstrip().startswith(start) else None


def _last_lines(context: Context, run: str) -> Sequence[str]:
    """Up to one more than are shown. Secrets are masked. Raises NotFound."""
    lines: deque[str] = deque(maxlen=_MOST_LINES + 1)
    rest = ""
    for piece in log_pieces(context.workspace, run, tail=_MOST_LINES + 1):
        *whole, rest = (rest + piece).split("\n")
        lines.extend(whole)
        rest = rest[-(1 << 20) :]  # one endless line must not fill the memory
    if rest:
        lines.append(rest)
    return [masked(line if len(line) <= _MOST_LINE else f"{line[:_MOST_LINE]} …") for line in lines]
