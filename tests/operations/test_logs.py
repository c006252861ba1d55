from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from amlctl.core.events import Event, LogText, RunStateChanged, Warned
from amlctl.core.run import RunRecord
from amlctl.errors import AmlctlError, LoginError, NotFound, RightsError, ServiceUnavailable
from amlctl.operations.logs import FollowOptions, InterruptChoice, Outage, code_paths, follow, log_pieces, tail_cursor
from amlctl.operations.runs import RunAt
from amlctl.operations.waiting import wait_for
from amlctl.workspaces.contract import LogChunk
from amlctl.workspaces.local.workspace import LocalWorkspace
from tests.support.bench import Bench, wait_for_state
from tests.support.logs import read_log_text

COUNT = """
    import sys, time
    for number in range(200):
        sys.stdout.write(f"größe {number} €\\n")
        if number % 40 == 0:
            time.sleep(0.05)
    sys.stdout.buffer.write(b"not utf-8: \\xff\\xfe\\n")
"""
WAITING = """
    import os, pathlib, sys, time
    sys.stdout.write("first\\n")  # in one piece, unlike print
    sys.stdout.flush()
    while not pathlib.Path(os.environ["GO"]).exists():
        time.sleep(0.02)
    print("second")
"""


def test_following_loses_nothing_and_repeats_nothing(bench: Bench) -> None:
    bench.script(COUNT)
    record = bench.submit("train.py").record
    text = "".join(event.text for event in bench.reported(LogText))
    lines = [line for line in text.splitlines() if line.startswith("größe")]
    assert lines == [f"größe {number} €" for number in range(200)]
    assert "not utf-8: \ufffd\ufffd" in text
    assert read_log_text(bench.workspace, record.run) == text


def test_reading_continues_at_a_cursor(bench: Bench) -> None:
    bench.script(COUNT)
    record = bench.submit("train.py").record
    whole = read_log_text(bench.workspace, record.run).encode()
    for cursor in (0, 1, 30, len(whole)):
        events: list[Event] = []
        follow(replace(bench, sink=events.append), record.run, cursor=cursor)
        reported = "".join(event.text for event in events if isinstance(event, LogText))
        assert reported == whole[cursor:].decode("utf-8", "replace")
        assert [event.state for event in events if isinstance(event, RunStateChanged)] == ["Completed"]


def test_a_path_that_no_disk_can_have_stays_as_it_is(bench: Bench) -> None:
    bench.script(f"""print('File "/x/pipeline/{"a" * 300}.py", line 3')""")
    run = bench.submit("train.py").record.run
    text = code_paths(bench.project, run).feed("".join(log_pieces(bench.workspace, run)), is_final=True)
    assert text == read_log_text(bench.workspace, run)


def test_the_tail_is_the_last_lines(bench: Bench) -> None:
    bench.script("for n in range(9): print(n)\n")
    record = bench.submit("train.py").record
    assert read_log_text(bench.workspace, record.run, tail=2) == "7\n8\n"
    assert read_log_text(bench.workspace, record.run, tail=0) == ""
    with pytest.raises(NotFound, match="other"):
        read_log_text(bench.workspace, record.run, name="other")
    with pytest.raises(NotFound):
        read_log_text(bench.workspace, "no-such-run")


def test_a_long_log_is_read_by_pieces(bench: Bench) -> None:
    """In little memory, whatever its lines are; a tail reads the end."""
    bench.script(
        """
        import sys
        for number in range(6):
            sys.stdout.buffer.write(b"%07d\\n" % number * 130_000)
        sys.stdout.buffer.write(b"x" * 10_000_000 + b"\\nlast but one\\nlast\\n")
        """
    )
    run = bench.submit("train.py").record.run
    pieces = list(map(len, log_pieces(bench.workspace, run)))
    assert sum(pieces) == 6 * 8 * 130_000 + 10_000_000 + len("\nlast but one\nlast\n")
    assert max(pieces) < 3 << 20
    reads = LogReads(bench.workspace)
    assert "".join(log_pieces(reads, run, tail=2)) == "last but one\nlast\n"  # type: ignore[arg-type]
    assert reads.count <= 3


class LogReads:
    """A workspace that counts how often its log is read."""

    def __init__(self, workspace: LocalWorkspace) -> None:
        self._workspace = workspace
        self.count = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._workspace, name)

    def read_log(self, run: str, cursor: int, *, name: str | None = None) -> LogChunk:
        self.count += 1
        return self._workspace.read_log(run, cursor, name=name)

    def log_end(self, run: str, *, name: str | None = None) -> int | None:
        return self._workspace.log_end(run, name=name)


class NoEnd(LogReads):
    """As long as Azure ML has a stand-in for the log, its end is not known."""

    def log_end(self, run: str, *, name: str | None = None) -> int | None:
        return None


def test_a_tail_begins_where_its_first_line_does(bench: Bench) -> None:
    for text in ("", "a", "a\n", "a\nb", "a\nb\n", "\n\n", "a\n\nb\n"):
        bench.script(f"import sys; sys.stdout.write({text!r})")
        run = bench.submit("train.py").record.run
        for count, kind in itertools.product(range(5), (LogReads, NoEnd)):
            lines = text.splitlines(keepends=True)
            expected = "".join(lines[len(lines) - min(count, len(lines)) :])
            start = tail_cursor(kind(bench.workspace), run, count)  # type: ignore[arg-type]
            assert text[start:] == expected, (text, count, kind)


def test_a_progress_bar_is_one_line(bench: Bench) -> None:
    bench.script("for n in range(9): print(f'\\r{n} of 8', end='')\nprint('\\nend')\n")
    record = bench.submit("train.py").record
    assert "\r3 of 8" in "".join(event.text for event in bench.reported(LogText))
    assert read_log_text(bench.workspace, record.run, tail=2) == "8 of 8\nend\n"


def interrupt_once(bench: Bench, run: str, choice: InterruptChoice) -> tuple[str, str]:
    """Follow, press Ctrl-C at the first line, choose; the final status as returned, and the log told."""
    events: list[Event] = []
    pressed = threading.Event()

    def sink(event: Event) -> None:
        events.append(event)
        if isinstance(event, LogText) and not pressed.is_set():
            pressed.set()
            raise KeyboardInterrupt

    def choose() -> InterruptChoice:
        if choice is InterruptChoice.CONTINUE:
            (bench.project.root / "go").touch()
        return choice

    record = follow(replace(bench, sink=sink), run, FollowOptions(choose))
    return record.status, "".join(event.text for event in events if isinstance(event, LogText))


def test_continuing_after_an_interrupt_loses_nothing(bench: Bench) -> None:
    bench.script(WAITING)
    go = str(bench.project.root / "go")
    run = bench.submit("train.py", is_detached=True, variables={"GO": go}).record.run
    assert interrupt_once(bench, run, InterruptChoice.CONTINUE) == ("Completed", "first\nsecond\n")


def test_detaching_leaves_the_run_alone(bench: Bench) -> None:
    bench.script(WAITING)
    go = str(bench.project.root / "go")
    run = bench.submit("train.py", is_detached=True, variables={"GO": go}).record.run
    wait_for_state(bench, run, "Running")  # which is noted a moment after the first line
    status, log = interrupt_once(bench, run, InterruptChoice.DETACH)
    assert (status, log) == ("Running", "first\n")
    Path(go).touch()
    wait_for_state(bench, run, "Completed")


def test_a_second_interrupt_while_canceling_leaves(bench: Bench) -> None:
    bench.script(
        """
        import signal, time
        signal.signal(signal.SIGTERM, lambda *_: print("asked to end", flush=True))
        print("started", flush=True)
        while True:
            time.sleep(0.1)
        """
    )
    run = bench.submit("train.py", is_detached=True).record.run

    def sink(event: Event) -> None:
        if isinstance(event, LogText):
            raise KeyboardInterrupt

    record = follow(replace(bench, sink=sink), run, FollowOptions(lambda: InterruptChoice.CANCEL))
    assert not record.is_final
    assert wait_for_state(bench, run, "Canceled").is_final


class FailsOnce(LogReads):
    """Its first read of the record does not end as it should."""

    def __init__(self, workspace: LocalWorkspace, failure: BaseException) -> None:
        super().__init__(workspace)
        self.failures = [failure]

    def read(self, run: str) -> RunRecord:
        if self.failures:
            raise self.failures.pop()
        return self._workspace.read(run)


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ServiceUnavailable("no network")])
def test_an_interrupt_or_an_outage_at_the_first_read_is_as_any_other(bench: Bench, failure: BaseException) -> None:
    bench.script(WAITING)
    go = str(bench.project.root / "go")
    run = bench.submit("train.py", is_detached=True, variables={"GO": go}).record.run
    asked: list[str] = []

    def choose() -> InterruptChoice:
        asked.append("what now?")
        return InterruptChoice.CONTINUE

    (bench.project.root / "go").touch()
    followed = replace(bench, workspace=FailsOnce(bench.workspace, failure))  # type: ignore[arg-type]
    record = follow(followed, run, FollowOptions(choose, outage=Outage(pause_s=0.01)))
    assert record.status == "Completed"
    assert len(asked) == isinstance(failure, KeyboardInterrupt)


def test_a_wait_outlives_an_outage(bench: Bench) -> None:
    bench.script("print(1)")
    run = bench.submit("train.py", is_detached=True).record.run
    waits = replace(bench, workspace=FailsOnce(bench.workspace, ServiceUnavailable("no network")))  # type: ignore[arg-type]
    assert [one.status for one in wait_for([RunAt(run, waits)], Outage(pause_s=0.01)).records] == ["Completed"]
    assert ["no network" in warning.message for warning in bench.reported(Warned)] == [True]


class FailsLater(LogReads):
    """The first wait for a change fails, and the run ends after that."""

    def __init__(self, workspace: LocalWorkspace, failure: Exception, go: Path) -> None:
        super().__init__(workspace)
        self._failure, self._go = failure, go

    def wait(self, run: str, cursor: int, timeout_s: float, *, name: str | None = None) -> None:
        if self._go.exists():
            return self._workspace.wait(run, cursor, timeout_s, name=name)
        self._go.touch()
        raise self._failure


@pytest.mark.parametrize("failure", [LoginError("expired", hint="az login"), RightsError("no VPN", hint="use a VPN")])
@pytest.mark.parametrize("is_followed", [True, False])
def test_a_login_that_expires_ends_no_watching(bench: Bench, failure: AmlctlError, is_followed: bool) -> None:
    """One that has never worked does."""
    bench.script(WAITING)
    go, outage = bench.project.root / "go", Outage(pause_s=0.01)
    run = bench.submit("train.py", is_detached=True, variables={"GO": str(go)}).record.run

    def watch(workspace: LogReads) -> RunRecord:
        watched = replace(bench, workspace=workspace)  # type: ignore[arg-type]
        if is_followed:
            return follow(watched, run, FollowOptions(outage=outage))
        return wait_for([RunAt(run, watched)], outage).records[0]

    with pytest.raises(type(failure)):
        watch(FailsOnce(bench.workspace, failure))
    assert watch(FailsLater(bench.workspace, failure, go)).status == "Completed"
    warned = f"{failure.message}; the run stays active; trying again; meanwhile: {failure.hint}"
    assert [warning.message for warning in bench.reported(Warned)] == [warned]
