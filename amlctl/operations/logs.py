"""`logs`: a run's log, live or afterwards. `submit` follows its run in the same way.

And why a run failed and what to do next: the same sentence for each command.
"""

from __future__ import annotations

import codecs
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import NamedTuple

from amlctl.core.events import EventSink, LogText, Note, RunPageKnown, RunStateChanged, Warned
from amlctl.core.log_text import CodePaths, TailFinder, collapsed, explained
from amlctl.core.message import Command, Message
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState, is_final
from amlctl.errors import AmlctlError, LoginError, NotFound, RightsError, RunFailed, ServiceUnavailable, UsageError
from amlctl.localfs.project import Project
from amlctl.operations.context import Context
from amlctl.operations.runs import children_left
from amlctl.operations.watch import SweepWatch, Watch
from amlctl.workspaces.contract import LogChunk, Workspace


def code_paths(project: Project, run: str) -> CodePaths:
    """Relative to the current folder, so that a terminal or an editor opens them."""

    def find(path: str, below: str) -> str:
        here = os.path.join(project.pipeline_dir, below)
        is_of_run = f"/{run}/" in path or not os.path.exists(path)
        return os.path.relpath(here) if is_of_run and os.path.isfile(here) else ""

    return CodePaths(find)


WAIT_S = 10.0
"""Longest wait for a change of a run; a workspace returns earlier when something happens."""
_PART_BYTES = 1 << 20


class Outage(NamedTuple):
    """How a service out of reach is tried again: a laptop may sleep, a network may change."""

    pause_s: float = 5.0
    limit_s: float = 1800.0

    def since(self, silent_since: float | None, error: AmlctlError, sink: EventSink, *, was_reached: bool) -> float:
        """The beginning of the silence (None: it begins now, which is reported). Raises the error after the limit, and
        at once if it is about a login that has not worked before (`was_reached`): one that has may have expired, and
        without its VPN a machine has no right."""
        now_s = time.monotonic()
        if not was_reached and not isinstance(error, ServiceUnavailable):
            raise error
        if silent_since is None:
            message = f"{error.message}; the run stays active; trying again"
            is_silence = isinstance(error, ServiceUnavailable)
            sink(Warned(message if is_silence else Message(message, "; meanwhile: ", error.hint)))
        elif now_s - silent_since > self.limit_s:
            raise error
        return now_s if silent_since is None else silent_since


DEFAULT_OUTAGE = Outage()
OUTAGES = (ServiceUnavailable, LoginError, RightsError)
"""What may pass while a run is watched."""


class InterruptChoice(Enum):
    """What the user wants with Ctrl-C while a run is followed."""

    CANCEL = "cancel"
    DETACH = "detach"
    CONTINUE = "continue"


@dataclass(frozen=True)
class FollowOptions:
    """`on_interrupt` is called at Ctrl-C; a Ctrl-C in it, or CANCEL, cancels the run and follows it to its end; one
    more detaches. `is_watched`: also report how the run stands."""

    on_interrupt: Callable[[], InterruptChoice] = lambda: InterruptChoice.DETACH
    is_watched: bool = False
    outage: Outage = DEFAULT_OUTAGE


DEFAULT_FOLLOW = FollowOptions()


def follow(
    context: Context,
    run: str,
    options: FollowOptions = DEFAULT_FOLLOW,
    *,
    name: str | None = None,
    cursor: int = 0,
) -> RunRecord:
    """Report the log from byte `cursor` on, and every change of state, until the run has finished.

    Returns the record as last read: not final if the user detached. A service that cannot be reached is tried again, as
    the run stays active; so is a login that expires. Raises NotFound, and one of `OUTAGES` (after the limit of the
    outage; at once without a login).
    """
    outage, is_cancelling = options.outage, False
    reader = _Reader(context, run, name, cursor, is_watched=options.is_watched)
    while True:
        try:
            # An inner loop: Ctrl-C is handled where a loop iterates, which must be inside of the try.
            while True:
                if reader.silent_since is not None:
                    time.sleep(outage.pause_s)
                if reader.has_ended():
                    return reader.record
        except OUTAGES as error:
            reader.silent_since = outage.since(reader.silent_since, error, context.sink, was_reached=reader.was_reached)
        except KeyboardInterrupt:
            if is_cancelling:
                return reader.record
            choice = _choice(options.on_interrupt)
            if choice is InterruptChoice.DETACH:
                return reader.record
            if choice is InterruptChoice.CANCEL:
                is_cancelling = True
                context.workspace.cancel(run)


class _Reader:
    """The log and the record of a run, as far as they were reported. `silent_since`: no answer since that moment;
    `was_reached`: there was one before."""

    def __init__(self, context: Context, run: str, name: str | None, cursor: int, *, is_watched: bool) -> None:
        self._context, self._workspace, self._sink = context, context.workspace, context.sink
        self._run, self._name, self._cursor = run, name, cursor
        self._paths = code_paths(context.project, run)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._reported = ("", "")
        self._shown_services: set[str] = set()
        self._is_page_known = False
        self.silent_since: float | None = None
        self.was_reached = False
        self._is_live = is_watched

    @cached_property
    def record(self) -> RunRecord:
        """As last read; first read where Ctrl-C and a lost service are handled."""
        return self._workspace.read(self._run)

    @cached_property
    def _watch(self) -> Watch | SweepWatch | None:
        """What is reported beside the log: a sweep has none."""
        if self.record.spec.sweep:
            return SweepWatch(self._context, is_live=self._is_live)
        return Watch(self._context, self._run) if self._is_live else None

    def has_ended(self) -> bool:
        """Report what is new, or wait for it; whether the run has finished and its whole log was reported."""
        if self._watch is not None and not self.record.is_final:
            self._watch.look(self.record)
        chunk = None
        if self._reported[0] == RunState.RUNNING:
            chunk = self._report_log()  # before the record: that of a run that has just finished may take a while
            if chunk.data:
                return False
        self.record = record = self._workspace.read(self._run)
        self._report_state(record)
        # A final state means that nothing is missing from a log that was read after it.
        if chunk is None or record.is_final:
            chunk = self._report_log()
        if chunk.is_final and record.is_final:
            if isinstance(self._watch, SweepWatch):
                self._watch.look(record)
            self._sink(_state_event(record))
            return True
        self.was_reached = True
        if not chunk.data:
            self.silent_since = None
            wait_s = WAIT_S if self._watch is None else self._watch.wait_s or WAIT_S
            self._workspace.wait(self._run, self._cursor, wait_s, name=self._name)
        return False

    def _report_log(self) -> LogChunk:
        chunk = self._workspace.read_log(self._run, self._cursor, name=self._name)
        text = self._paths.feed(self._decoder.decode(chunk.data, final=chunk.is_final), is_final=chunk.is_final)
        self._cursor = chunk.cursor
        if text:
            self._sink(LogText(self._run, text))
            self.silent_since = None
        return chunk

    def _report_state(self, record: RunRecord) -> None:
        if record.studio_url and not self._is_page_known and not is_final(record.status):
            self._is_page_known = True
            self._sink(RunPageKnown(record.run, record.studio_url))
        for service in sorted(record.services.keys() - self._shown_services):
            self._shown_services.add(service)
            self._sink(Note(f"{service}: {record.services[service]}"))
        if (record.status, record.waits_for) != self._reported and not is_final(record.status):
            self._reported = (record.status, record.waits_for)
            self._sink(_state_event(record))


def require_log(workspace: Workspace, run: str) -> None:
    """Raises UsageError for a sweep, whose runs have logs instead, NotFound."""
    record = workspace.read(run)
    if record.spec.sweep and record.children:
        failed_first = sorted(record.children, key=lambda one: one["status"] != RunState.FAILED)
        first = next(children_left(workspace, failed_first), "RUN")
        raise UsageError(f"run {run} is a sweep: its runs have logs", hint=Command("logs", first))


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
        raise NotFound(f"run {run} has no log {name!r}", hint=f"available: {', '.join(names) or 'none yet'}")
    cursor = 0 if tail is None else tail_cursor(workspace, run, tail, name=name)
    return _decoded(collapsed_log(workspace, run, name, cursor=cursor))


def tail_cursor(workspace: Workspace, run: str, tail: int, *, name: str | None = None) -> int:
    """The byte offset from which to follow, so that the last `tail` lines come first."""
    end = workspace.log_end(run, name=name)
    if end is None:  # what stands in for the log is short
        end = sum(map(len, _parts(workspace, run, name, 0)))
    finder = TailFinder(tail, end)
    while finder.start is None:
        start = max(0, end - _PART_BYTES)
        data = _bytes_between(workspace, run, name, start, end)
        finder.feed(data, start)
        end = start
    return finder.start


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
    return collapsed(_parts(workspace, run, name, cursor))


def _parts(workspace: Workspace, run: str, name: str | None, cursor: int) -> Iterator[bytes]:
    """The log so far, as it was written."""
    is_last = False
    while not is_last:
        chunk = workspace.read_log(run, cursor, name=name)
        yield chunk.data
        cursor, is_last = chunk.cursor, chunk.is_final or not chunk.data


def _decoded(parts: Iterable[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for part in parts:
        yield decoder.decode(part)
    yield decoder.decode(b"", final=True)


_READ_LINES = 40
_SHOWN_LINES = 8
_COLOR = re.compile(r"\x1b\[[0-9;]*m")


def run_failure(context: Context, record: RunRecord, *, hint: str, shown_log: str | None = None) -> RunFailed | None:
    """The error of a command that has followed a run; None if it Completed or is still active.

    `shown_log`: the log that the user has just seen; the last lines of another one that says why are details.
    """
    if not record.is_final or record.status == RunState.COMPLETED:
        return None
    error = record.error or {}
    message, details = error.get("message", ""), list[str]()
    if record.spec.sweep:
        hint = "the same command with --needed runs what is left"
    hint = error.get("hint") or hint
    if error.get("kind") == "script":
        name = error.get("log")
        lines = _last_lines(context, record, name)
        found = explained(lines)
        if found.reason:
            message = f"{message}: {found.reason}"
        if name is not None and name != shown_log:
            details = list(lines[-_SHOWN_LINES:])
        # Where to read what the script said, unless it is known what to do.
        if found.module or found.file:
            from amlctl.operations.not_sent import next_step  # here, since few scripts fail so

            hint = next_step(context, record, found) or hint
    says_how = message.startswith("canceled")
    what = f"was {message}" if says_how else f"is {record.status}" + (f": {message}" if message else "")
    return RunFailed(f"run {record.run} {what}", hint=hint, details=details)


def _last_lines(context: Context, record: RunRecord, name: str | None) -> Sequence[str]:
    try:
        pieces = log_pieces(context.workspace, record.run, tail=_READ_LINES, name=name)
        text = code_paths(context.project, record.run).feed("".join(pieces), is_final=True)
    except (AmlctlError, OSError):
        return ()
    return [_COLOR.sub("", line) for line in text.splitlines() if line.strip()]
