from __future__ import annotations

import threading

import pytest

from amlctl.core.events import Event, LogText, RunStateChanged
from amlctl.errors import NotFound
from amlctl.operations.logs import InterruptChoice, follow
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
    import os, pathlib, time
    print("first", flush=True)
    while not pathlib.Path(os.environ["GO"]).exists():
        time.sleep(0.02)
    print("second")
"""


def test_following_loses_nothing_and_repeats_nothing(bench: Bench) -> None:
    bench.script(COUNT)
    record = bench.submit("train.py").record
    text = "".join(event.text for event in bench.told(LogText))
    lines = [line for line in text.splitlines() if line.startswith("größe")]
    assert lines == [f"größe {number} €" for number in range(200)]
    assert "not utf-8: \ufffd\ufffd" in text
    assert read_log_text(bench.workspace, record.run) == text


def test_reading_goes_on_at_a_cursor(bench: Bench) -> None:
    bench.script(COUNT)
    record = bench.submit("train.py").record
    whole = read_log_text(bench.workspace, record.run).encode()
    for cursor in (0, 1, 30, len(whole)):
        events: list[Event] = []
        follow(bench.workspace, record.run, events.append, cursor=cursor)
        told = "".join(event.text for event in events if isinstance(event, LogText))
        assert told == whole[cursor:].decode("utf-8", "replace") or "\xff" in repr(whole)
        assert [event.state for event in events if isinstance(event, RunStateChanged)] == ["Completed"]


def test_the_tail_is_the_last_lines(bench: Bench) -> None:
    bench.script("for n in range(9): print(n)\n")
    record = bench.submit("train.py").record
    assert read_log_text(bench.workspace, record.run, tail=2) == "7\n8\n"
    assert read_log_text(bench.workspace, record.run, tail=0) == ""
    with pytest.raises(NotFound, match="other"):
        read_log_text(bench.workspace, record.run, name="other")
    with pytest.raises(NotFound):
        read_log_text(bench.workspace, "no-such-run")


def test_a_progress_bar_is_one_line(bench: Bench) -> None:
    bench.script("for n in range(9): print(f'\\r{n} of 8', end='')\nprint('\\nend')\n")
    record = bench.submit("train.py").record
    assert "\r3 of 8" in "".join(event.text for event in bench.told(LogText))
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
        (bench.project.root / "go").touch()
        return choice

    record = follow(bench.workspace, run, sink, on_interrupt=choose)
    return record.status, "".join(event.text for event in events if isinstance(event, LogText))


def test_going_on_after_an_interrupt_loses_nothing(bench: Bench) -> None:
    bench.script(WAITING)
    go = str(bench.project.root / "go")
    run = bench.submit("train.py", is_detached=True, variables={"GO": go}).record.run
    assert interrupt_once(bench, run, InterruptChoice.CONTINUE) == ("Completed", "first\nsecond\n")


def test_detaching_leaves_the_run_alone(bench: Bench) -> None:
    bench.script(WAITING)
    go = str(bench.project.root / "go")
    run = bench.submit("train.py", is_detached=True, variables={"GO": go}).record.run
    status, log = interrupt_once(bench, run, InterruptChoice.DETACH)
    assert (status, log) == ("Running", "first\n")
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

    record = follow(bench.workspace, run, sink, on_interrupt=lambda: InterruptChoice.CANCEL)
    assert not record.is_final
    assert wait_for_state(bench, run, "Canceled").is_final
