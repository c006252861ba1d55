"""The live region of the terminal: a bar for each stage, drawn from the latest events a few times a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from amlctl.cli.render.tables import cell_width, cut, printable

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
