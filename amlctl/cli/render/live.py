"""The live region of the terminal: rich's progress bars, fed with the latest events whenever it is redrawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from rich.cells import set_cell_size
from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from amlctl.cli.render.tables import cell_width, printable
from amlctl.core.events import StageProgress

if TYPE_CHECKING:
    from amlctl.cli.render.progress import LiveProgress, StageState

_FRAMES_PER_SECOND = 8
_RATE_WINDOW_S = 5.0
"""Rate and time left come from the last seconds."""


class Region:
    """Redrawn by a thread of rich between `start` and `stop`; only a redraw touches rich's tasks."""

    def __init__(self, progress: LiveProgress, stream: TextIO, *, has_color: bool) -> None:
        self._source = progress
        self._console = Console(file=stream, no_color=not has_color, highlight=False, soft_wrap=True)
        self._bars = Progress(console=self._console, speed_estimate_period=_RATE_WINDOW_S)
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._live = Live(
            get_renderable=self.drawn,
            console=self._console,
            refresh_per_second=_FRAMES_PER_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self.start, self.stop = self._live.start, self._live.stop

    def drawn(self) -> Group:
        """A bar for each stage, then what the command waits for."""
        stages = dict(self._source.stages)
        for key in self._tasks.keys() - stages.keys():
            self._bars.remove_task(self._tasks.pop(key))
        for key, state in stages.items():
            if key not in self._tasks:
                self._tasks[key] = self._bars.add_task(state.name, total=None, state=state)
            self._advance(self._tasks[key], state.latest)
        longest = max((cell_width(printable(state.latest.subject)) for state in stages.values()), default=0)
        self._bars.columns = _columns(self._console.width, longest)
        waits = (Text.assemble(("wait", "cyan"), f"    {line}", no_wrap=True) for line in self._source.wait_lines())
        return Group(*([self._bars.make_tasks_table(self._bars.tasks)] if stages else []), *waits)

    def _advance(self, task: TaskID, event: StageProgress) -> None:
        """Also by 0, so that rich's rate falls while nothing arrives."""
        has_bytes = bool(event.total_bytes or event.done_bytes)
        done, total = (event.done_bytes, event.total_bytes) if has_bytes else (event.done_files, event.total_files)
        before = self._bars.tasks[self._bars.task_ids.index(task)].completed
        if done < before:  # a retry started over
            self._bars.reset(task)
            before = 0
        self._bars.update(task, total=total)
        self._bars.advance(task, done - before)

    def print_line(self, line: str) -> None:
        """A line above the region, in the colors that it has."""
        self._console.print(Text.from_ansi(line), soft_wrap=True)


def _columns(width: int, subject: int) -> tuple[ProgressColumn, ...]:
    """What a screen of `width` cells has room for."""
    subject = min(subject, width // 3)
    room = width - subject - 20  # without stage, percent, time left and gaps
    shown = set()
    for name, cells in (("bar", 10), ("files", 18), ("rate", 12), ("bytes", 19)):
        if room >= cells:
            shown.add(name)
            room -= cells
    bar = BarColumn(8 + min(room, 12), complete_style="green", finished_style="green", pulse_style="green")
    return (
        TextColumn("{task.description}", style="cyan", markup=False),
        _Subject(subject),
        *([bar] if "bar" in shown else []),
        _Fact("percent"),
        *([_Fact("files")] if "files" in shown else []),
        *([_Fact("bytes")] if "bytes" in shown else []),
        *([_Rate()] if "rate" in shown else []),
        TimeRemainingColumn(compact=True),
    )


class _Subject(ProgressColumn):
    """What the stage works on, in at most `width` cells: of a path the end says more than the beginning."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self._width = width

    def render(self, task: Task) -> Text:
        subject = printable(_state(task).latest.subject)
        if cell_width(subject) > self._width:
            subject = "…" + set_cell_size(subject[::-1], self._width - 1)[::-1]
        return Text(subject, no_wrap=True)


class _Fact(ProgressColumn):
    """One of the texts of the stage's state."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def render(self, task: Task) -> Text:
        return Text(getattr(_state(task), self._name), no_wrap=True)


class _Rate(TransferSpeedColumn):
    """Nothing for a stage that counts files only."""

    def render(self, task: Task) -> Text:
        return super().render(task) if _state(task).latest.done_bytes else Text("")


def _state(task: Task) -> StageState:
    state: StageState = task.fields["state"]
    return state
