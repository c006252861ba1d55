"""How much may be under way: what the line carries in a few seconds, and never nothing."""

from __future__ import annotations

import threading

from amlctl.stores.azure_blob.window import Window

MIB = 1 << 20
BLOCK = 4 * MIB
MOST = 64 * MIB


class Line:
    """What blocks travel over, one after the other, in a time of its own."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.window = Window(MOST, clock=lambda: self.now_s)

    def carry(self, rate: float) -> int:
        """The limit once a minute's blocks have arrived at that many bytes a second."""
        for _ in range(int(60 * rate / BLOCK)):
            self.window.take(BLOCK)
            self.now_s += BLOCK / rate
            self.window.give_back(BLOCK)
        return self.window.limit_bytes


def test_a_fast_line_is_filled_and_a_slow_one_is_not() -> None:
    for rate, expected in [(0.5 * MIB, 8 * MIB), (4 * MIB, 16 * MIB), (100 * MIB, MOST)]:
        found = Line().carry(rate)
        assert abs(found - expected) < 2 * MIB, (rate, found)


def test_blocks_that_share_a_line_and_end_together_are_no_fast_one() -> None:
    line = Line()
    limits = []
    line.window.take(BLOCK)  # never quite empty, as while a file is sent
    for _ in range(30):
        line.window.take(BLOCK)
        line.now_s += 2 * BLOCK / (2.5 * MIB)
        line.window.give_back(BLOCK)
        line.window.take(BLOCK)
        line.now_s += 0.001
        line.window.give_back(BLOCK)
        limits.append(line.window.limit_bytes)
    assert max(limits) < 16 * MIB


def test_a_line_that_slows_down_is_noticed() -> None:
    line = Line()
    assert line.carry(100 * MIB) == MOST
    assert line.carry(0.5 * MIB) == 8 * MIB


def test_blocks_that_are_there_already_do_not_make_a_line_fast() -> None:
    """As where a large upload is taken up again: thousands of its blocks are read, and none is sent."""
    line = Line()
    line.carry(0.5 * MIB)
    for _ in range(1000):
        line.window.take(BLOCK)
        line.now_s += 0.001
        line.window.give_back(BLOCK, has_travelled=False)
    assert line.window.limit_bytes == 8 * MIB


def test_a_pause_is_no_slow_line() -> None:
    line = Line()
    line.carry(100 * MIB)
    line.now_s += 3600
    assert line.carry(100 * MIB) == MOST


def test_one_part_of_any_size_is_let_in_and_the_next_waits() -> None:
    window = Window(MOST)
    window.take(10 * MOST)
    entered = threading.Event()

    def enter() -> None:
        window.take(1)
        entered.set()

    thread = threading.Thread(target=enter)
    thread.start()
    assert not entered.wait(0.05)
    window.give_back(10 * MOST)
    assert entered.wait(10)
    thread.join()
