"""`logs`: a run's log, live or afterwards. `submit` follows its run in the same way."""

from __future__ import annotations

import codecs
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from amlctl.core.events import LogText, Note, RunStateChanged, Warned
from amlctl.core.log_text import CarriageReturnCollapser, TailFinder
from amlctl.core.message import Command
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState, is_final
from amlctl.errors import NotFound, ServiceUnavailable, UsageError
from amlctl.operations.code_paths import code_paths
from amlctl.operations.context import Context
from amlctl.operations.sweep import SweepWatch
from amlctl.operations.watch import Watch
from amlctl.workspaces.contract import LogChunk, Workspace

WAIT_S = 10.0
"""Longest wait for a change of a run; a workspace returns earlier when something happens."""
_PART_BYTES = 1 << 20


class Outage(NamedTuple):
    """How a service out of reach is tried again: a laptop may sleep, a network may change."""

    pause_s: float = 5.0
    limit_s: float = 1800.0


DEFAULT_OUTAGE = Outage()


class InterruptChoice(Enum):
    """What the user wants with Ctrl-C while a run is followed."""

    CANCEL = "cancel"
    DETACH = "detach"
    CONTINUE = "continue"


def detach_on_interrupt() -> InterruptChoice:
    """Where a run is only watched: Ctrl-C ends the watching, not the run."""
    return InterruptChoice.DETACH


def follow(
    context: Context,
    run: str,
    *,
    on_interrupt: Callable[[], InterruptChoice] = detach_on_interrupt,
    name: str | None = None,
    cursor: int = 0,
    outage: Outage = DEFAULT_OUTAGE,
    is_watched: bool = False,
) -> RunRecord:
    """Report the log from byte `cursor` on, and every change of state, until the run has finished.

    Returns the record as last read: not final if the user detached. `on_interrupt` is called at Ctrl-C; a Ctrl-C in it,
    or CANCEL, cancels the run and follows it to its end; one more detaches. A service that cannot be reached is tried
    again, as the run stays active. `is_watched`: also report how the run stands. Raises NotFound, ServiceUnavailable
    (after the limit of `outage`).
    """
    workspace, sink = context.workspace, context.sink
    paths = code_paths(context.project, run)
    record = workspace.read(run)
    watch = watch_of(context, record, is_live=is_watched)
    wait_s = WAIT_S if watch is None else watch.wait_s or WAIT_S
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    reported = ("", "")
    shown: set[str] = set()
    is_cancelling = False
    silent_since: float | None = None

    def report_log() -> LogChunk:
        nonlocal cursor, silent_since
        chunk = workspace.read_log(run, cursor, name=name)
        text = paths.feed(decoder.decode(chunk.data, final=chunk.is_final), is_final=chunk.is_final)
        cursor = chunk.cursor
        if text:
            sink(LogText(run, text))
            silent_since = None
        return chunk

    def look() -> RunRecord | None:
        """The record, once the run has finished and its whole log was reported."""
        nonlocal record, reported, silent_since
        if silent_since is not None:
            time.sleep(outage.pause_s)
        if watch is not None and not record.is_final:
            watch.look(record)
        chunk = None
        if reported[0] == RunState.RUNNING:
            chunk = report_log()  # before the record: that of a run that has just finished may take a while
            if chunk.data:
                return None
        record = workspace.read(run)
        for service in sorted(record.services.keys() - shown):
            shown.add(service)
            sink(Note(f"{service}: {record.services[service]}"))
        if (record.status, record.waits_for) != reported and not is_final(record.status):
            reported = (record.status, record.waits_for)
            sink(_state_event(record))
        # A final state means that nothing is missing from a log that was read after it.
        if chunk is None or record.is_final:
            chunk = report_log()
        if chunk.is_final and record.is_final:
            if isinstance(watch, SweepWatch):
                watch.look(record)
            sink(_state_event(record))
            return record
        if not chunk.data:
            silent_since = None
            workspace.wait(run, cursor, wait_s, name=name)
        return None

    while True:
        try:
            # An inner loop: Ctrl-C is handled where a loop iterates, which must be inside of the try.
            while (ended := look()) is None:
                pass
            return ended
        except ServiceUnavailable as error:
            if silent_since is None:
                silent_since = time.monotonic()
                sink(Warned(f"{error.message}; the run stays active; trying again"))
            elif time.monotonic() - silent_since > outage.limit_s:
                raise
        except KeyboardInterrupt:
            if is_cancelling:
                return record
            choice = _choice(on_interrupt)
            if choice is InterruptChoice.DETACH:
                return record
            if choice is InterruptChoice.CANCEL:
                is_cancelling = True
                workspace.cancel(run)


def require_log(workspace: Workspace, run: str) -> None:
    """Raises UsageError for a sweep, whose runs have logs instead, NotFound."""
    record = workspace.read(run)
    if record.spec.sweep and record.children:
        failed = [one for one in record.children if one["status"] == RunState.FAILED]
        raise UsageError(
            f"run {run} is a sweep: its runs have logs",
            hint=Command("logs", (failed or record.children)[0]["run"]),
        )


def watch_of(context: Context, record: RunRecord, *, is_live: bool) -> Watch | SweepWatch | None:
    """What is reported beside the log: a sweep has none."""
    if record.spec.sweep:
        return SweepWatch(context, is_live=is_live)
    return Watch(context, record.run) if is_live else None


def _choice(on_interrupt: Callable[[], InterruptChoice]) -> InterruptChoice:
    try:
        return on_interrupt()
    except KeyboardInterrupt:
        return InterruptChoice.CANCEL


def _state_event(record: RunRecord) -> RunStateChanged:
    reason = (record.error or {}).get("message", "") or record.waits_for
    return RunStateChanged(record.run, record.status, reason)


def log_pieces(workspace: Workspace, run: str, *, tail: int | None = None, name: str | None = None) -> Iterator[str]:
    """The log so far, progress bars collapsed: all of it, or its last `tail` lines. Never held as a whole.

    Raises NotFound (run, or log of that name), before the first piece.
    """
    names = workspace.log_names(run)
    if name is not None and name not in names:
        raise NotFound(f"run {run} has no log {name!r}", hint=f"its logs: {', '.join(names) or 'none yet'}")
    cursor = 0 if tail is None else tail_cursor(workspace, run, tail, name=name)
    return _decoded(collapsed_log(workspace, run, name, cursor=cursor))


def tail_cursor(workspace: Workspace, run: str, tail: int, *, name: str | None = None) -> int:
    """The byte offset from which to follow, so that the last `tail` lines come first."""
    end = workspace.log_end(run, name=name)
    if end is None:
        return _tail_from_start(workspace, run, tail, name)
    finder = TailFinder(tail, end)
    while finder.start is None:
        start = max(0, end - _PART_BYTES)
        data = _bytes_between(workspace, run, name, start, end)
        finder.feed(data, start)
        end = start
    return finder.start


def _tail_from_start(workspace: Workspace, run: str, tail: int, name: str | None) -> int:
    """The same, reading from the start: only the offsets of the last lines are kept."""
    starts: deque[int] = deque([0], maxlen=tail + 1)
    cursor = 0
    while True:
        chunk = workspace.read_log(run, cursor, name=name)
        at = chunk.data.find(b"\n")
        while at >= 0:
            starts.append(cursor + at + 1)
            at = chunk.data.find(b"\n", at + 1)
        cursor = chunk.cursor
        if chunk.is_final or not chunk.data:
            break
    if starts[-1] == cursor:
        starts.pop()  # a line feed at the very end does not begin a line
    return starts[-min(tail, len(starts))] if tail > 0 and starts else cursor


def _bytes_between(workspace: Workspace, run: str, name: str | None, start: int, end: int) -> bytes:
    data = b""
    while len(data) < end - start:
        part = workspace.read_log(run, start + len(data), name=name).data
        if not part:
            break
        data += part
    return data[: end - start]


def collapsed_log(workspace: Workspace, run: str, name: str | None = None, *, cursor: int = 0) -> Iterator[bytes]:
    """The log so far, piece by piece, as a terminal would show it in the end. Raises NotFound."""
    collapser = CarriageReturnCollapser()
    while True:
        chunk = workspace.read_log(run, cursor, name=name)
        yield collapser.feed(chunk.data)
        cursor = chunk.cursor
        if chunk.is_final or not chunk.data:
            break
    yield collapser.flush()


def _decoded(parts: Iterable[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for part in parts:
        yield decoder.decode(part)
    yield decoder.decode(b"", final=True)
