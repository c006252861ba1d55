"""A run that is watched on a terminal: its log scrolls, and below it stand its phases and how it is doing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from threading import RLock
from typing import TextIO

from rich.console import Group
from rich.rule import Rule
from rich.segment import Segment, Segments
from rich.text import Text

from amlctl.cli.render.live import live_region, terminal
from amlctl.cli.render.run_text import SEPARATOR, best_line, count_line, fitting, phase_text, sweep_table
from amlctl.cli.render.tables import cell_width, duration, painted, printable
from amlctl.core.events import RunWatched, SweepWatched
from amlctl.core.log_text import CarriageReturnCollapser
from amlctl.core.message import size
from amlctl.core.metrics import shown
from amlctl.core.phases import timeline
from amlctl.core.run_state import RunState
from amlctl.core.sweep import best_of

_FRAMES_PER_SECOND = 4
_METRICS = 4
_AROUND = 6
"""Lines of a screen that a sweep leaves to what is around its table."""
_STYLES: dict[str, str] = {RunState.RUNNING: "bold green", RunState.CANCEL_REQUESTED: "bold yellow"}
_GAP = "  "


class RunScreen:
    """Thread-safe. Between `start` and `stop` nothing else may write to the terminal."""

    def __init__(self, stream: TextIO, *, has_color: bool) -> None:
        self._console = terminal(stream, has_color=has_color)
        self._lock = RLock()
        self._log = CarriageReturnCollapser()
        self._latest: RunWatched | SweepWatched | None = None
        self._seen_s = 0.0
        self._live = live_region(self.drawn, self._console, _FRAMES_PER_SECOND)
        self.start = self._live.start

    def show(self, event: RunWatched | SweepWatched) -> None:
        with self._lock:
            self._latest, self._seen_s = event, time.monotonic()

    def write_log(self, text: str) -> None:
        """Complete lines go above the region; one that is still written to, a progress bar say, is part of it."""
        with self._lock:
            lines = self._log.feed(text.encode("utf-8", "backslashreplace"))
        if lines:
            self._print(lines.decode("utf-8", "replace"))

    def write_line(self, line: str) -> None:
        self._print(f"{line}\n")

    def _print(self, text: str) -> None:
        with suppress(OSError, ValueError):  # the terminal was closed
            self._console.print(Segments([Segment(text)]), end="")

    def stop(self) -> None:
        """The rest of the log's last line stays on the screen."""
        with suppress(OSError, ValueError):
            self._live.stop()
        with self._lock:
            rest = self._log.flush()
        if rest:
            self._print(rest.decode("utf-8", "replace") + "\n")

    def drawn(self) -> Group:
        width = self._console.width
        with self._lock:
            event, passed_s = self._latest, time.monotonic() - self._seen_s
            line = self._log.pending.decode("utf-8", "replace")
        shown_line = [_cut(Text.from_ansi(line), width)] if line else []
        if event is None:
            return Group(*shown_line)
        rule = Rule(style="dim", characters="─")
        if isinstance(event, SweepWatched):
            return Group(rule, *self._sweep(event))
        return Group(*shown_line, rule, *_footer(event, passed_s, width))

    def _sweep(self, event: SweepWatched) -> Iterator[Text]:
        """A table of what the screen has room for, and how far the sweep is."""
        width, height = self._console.size
        rows = fitting(event.rows, event.goal, max(1, height - _AROUND))
        has_color = not self._console.no_color
        drawn = sweep_table(event.rows, event.goal, rows).drawn(width, has_color=has_color)
        yield Text.from_ansi(drawn.rstrip("\n"), no_wrap=True)
        has_best = best_of(event.rows, event.goal) is not None
        lines = [count_line(event.rows)] + ([best_line(event.rows, event.goal)] if has_best else [])
        for line in lines:
            yield _cut(Text.from_ansi(painted(line, str, has_color=has_color)), width)


def _footer(event: RunWatched, passed_s: float, width: int) -> Iterator[Text]:
    """One line of phases, one of what the run does now."""
    record = event.record
    spans = list(timeline(record, datetime.now(UTC)))
    texts = [phase_text(span) for span in spans]
    while len(texts) > 1 and cell_width(SEPARATOR.join(texts)) > width:  # the latest matter most
        texts.pop(0)
    phases = Text(SEPARATOR.join(texts[:-1]) + (SEPARATOR if len(texts) > 1 else ""), "dim")
    yield _cut(phases.append(texts[-1] if texts else "", "bold not dim"), width)
    style = _STYLES.get(record.status, "bold cyan")
    status = Text().append(printable(record.status), style)
    for fact in _facts(event, passed_s, spans[-1].note if spans and spans[-1].is_open else ""):
        if status.cell_len + len(_GAP) + cell_width(fact) <= width:
            status.append(_GAP).append(fact)
    yield _cut(status, width)


def _facts(event: RunWatched, passed_s: float, note: str) -> Iterator[str]:
    """The most telling first."""
    record, usage = event.record, event.usage
    if record.waits_for:
        yield printable(record.waits_for)
    if note and record.status == RunState.PREPARING:
        yield printable(note)
    for name, value in list(event.metrics.items())[:_METRICS]:
        yield printable(f"{name} {shown(value)}")
    if usage.processors is not None:
        yield f"cpu {usage.processors:.0%}"
    if usage.memory_bytes:
        yield f"mem {size(usage.memory_bytes)}"
    if usage.gpu is not None:
        yield f"gpu {usage.gpu:.0%}" + (f" {size(usage.gpu_memory_bytes)}" if usage.gpu_memory_bytes else "")
    if event.saved_s is not None:
        saved_s = event.saved_s + passed_s
        yield "outputs just saved" if saved_s < 10 else f"outputs saved {duration(saved_s)} ago"


def _cut(text: Text, width: int) -> Text:
    text.no_wrap = True
    text.truncate(width, overflow="ellipsis")
    return text
