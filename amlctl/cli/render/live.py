"""The live region of a terminal, drawn from the latest events a few times a second: a bar for each stage of a command,
or, below the log of a run that is watched, its phases and how it is doing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from threading import RLock
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.segment import Segment, Segments
from rich.table import Table
from rich.text import Text

from amlctl.cli.render.run_text import SEPARATOR, best_line, count_line, fitting, phase_text, sweep_table
from amlctl.cli.render.tables import cell_width, cut, duration, painted, printable
from amlctl.core.events import RunWatched, SweepWatched
from amlctl.core.log_text import CarriageReturnCollapser
from amlctl.core.message import size
from amlctl.core.metrics import shown
from amlctl.core.phases import timeline
from amlctl.core.run_state import RunState
from amlctl.core.sweep import best_of

if TYPE_CHECKING:
    from amlctl.cli.render.progress import LiveProgress, StageState

_FRAMES_PER_SECOND = 8
_NAME_CELLS = 7
_LEAST_SUBJECT = 12
_FACTS = {"percent": 4, "left": 15, "rate": 8, "bytes": 0, "files": 0}
"""The most telling first, with the cells that they take at least, so that the bar keeps its width."""
_LEAST_BAR, _WIDEST_BAR = 8, 40
_GREEN = "green"


def terminal(stream: TextIO, *, has_color: bool) -> Console:
    return Console(file=stream, no_color=not has_color, highlight=False, soft_wrap=True)


def live_region(drawn: Callable[[], RenderableType], console: Console, frames_per_second: int) -> Live:
    """Redrawn by a thread of rich between `start` and `stop`, and then removed."""
    return Live(
        get_renderable=drawn,
        console=console,
        refresh_per_second=frames_per_second,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


class Region:
    """The stages of a command."""

    def __init__(self, progress: LiveProgress, stream: TextIO, *, has_color: bool) -> None:
        self._source = progress
        self._console = terminal(stream, has_color=has_color)
        live = live_region(self.drawn, self._console, _FRAMES_PER_SECOND)
        self.start, self.stop = live.start, live.stop

    def drawn(self) -> Group:
        """A bar for each stage, then what the command waits for."""
        stages = [state for state in list(self._source.stages.values()) if not self._source.feeds_another(state)]
        waits = (Text.assemble(("wait", "cyan"), f"    {line}", no_wrap=True) for line in self._source.wait_lines())
        tool = self._source.tool_line
        tool_lines = [Text(cut(tool, self._console.width), "dim", no_wrap=True)] if tool else []
        return Group(*tool_lines, *([_table(stages, self._console.width)] if stages else []), *waits)

    def print_line(self, line: str) -> None:
        """A line above the region, in the colors that it has."""
        self._console.print(Text.from_ansi(line), soft_wrap=True)


def _table(stages: Sequence[StageState], width: int) -> Table:
    """Each stage in a row. What a screen of `width` cells has no room for is left out, the least telling first."""
    now_s = time.monotonic()
    facts: dict[str, list[str]] = {name: [] for name in _FACTS}
    for state in stages:
        state.note(now_s)
        facts["percent"].append(state.percent)
        facts["left"].append(state.left(now_s))
        facts["rate"].append(state.rate(now_s))
        facts["bytes"].append(state.bytes)
        facts["files"].append(state.files)
    subjects = [printable(state.latest.subject) for state in stages]
    longest = max(map(cell_width, subjects))
    subject = min(longest, max(_LEAST_SUBJECT, width // 5))
    room = width - _NAME_CELLS - subject - _LEAST_BAR - 1
    has_bytes = any(facts["bytes"])
    shown = set()
    for name, texts in facts.items():
        needed = max(_FACTS[name] if has_bytes else 0, *map(cell_width, texts)) + 1
        if 1 < needed <= room:
            shown.add(name)
            room -= needed
    more = min(longest - subject, room)
    bar = min(_LEAST_BAR + room - more, _WIDEST_BAR)
    table = Table.grid(padding=(0, 1, 0, 0), pad_edge=False)
    for row, state in enumerate(stages):
        texts = [facts[name][row] for name in ("percent", "files", "bytes", "rate", "left") if name in shown]
        table.add_row(*_cells(state, _shortened(subjects[row], subject + more), bar, texts))
    return table


def _cells(state: StageState, subject: str, bar: int, facts: Sequence[str]) -> Iterator[RenderableType]:
    yield Text(state.name, "cyan", no_wrap=True)
    yield Text(subject, no_wrap=True)
    share = state.share
    yield ProgressBar(
        total=None if share is None else 1.0,
        completed=min(share or 0.0, 1.0),
        width=bar,
        complete_style=_GREEN,
        finished_style=_GREEN,
        pulse_style=_GREEN,
    )
    yield from (Text(fact, no_wrap=True) for fact in facts)


def _shortened(subject: str, cells: int) -> str:
    """Of a path the end says more than the beginning."""
    return cut(subject[::-1], cells)[::-1]


_FRAMES_OF_A_RUN = 4
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
        self._live = live_region(self.drawn, self._console, _FRAMES_OF_A_RUN)
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
