"""Blocks of files: as much memory as may be under way, and the same again for the next ones."""

from __future__ import annotations

import threading

from amlctl.stores.azure_blob.window import BlockMemory, Window

MIB = 1 << 20


def test_what_was_not_handed_over_is_used_again_at_once() -> None:
    memory = BlockMemory(Window(8 * MIB))
    with memory.block(4 * MIB) as first:
        first.data[:4] = b"seen"
    with memory.block(2 * MIB) as second:
        assert second.memory is first.memory
        assert second.data.nbytes == 2 * MIB


def test_a_larger_block_gets_memory_of_its_own() -> None:
    memory = BlockMemory(Window(8 * MIB))
    with memory.block(1 * MIB):
        pass
    with memory.block(4 * MIB) as larger:
        assert larger.data.nbytes == 4 * MIB


def test_what_is_sent_keeps_its_memory_and_its_room_until_it_has_arrived() -> None:
    memory = BlockMemory(Window(8 * MIB))
    arrivals = []
    for _ in range(2):
        with memory.block(4 * MIB) as block:
            arrivals.append(memory.hand_over(block))
    was_let_in = threading.Event()

    def third() -> None:
        with memory.block(4 * MIB):
            was_let_in.set()

    waiting = threading.Thread(target=third)
    waiting.start()
    assert not was_let_in.wait(0.2)
    arrivals[0]()
    assert was_let_in.wait(10)
    waiting.join()


def test_what_did_not_travel_says_nothing_about_the_line() -> None:
    window = Window(64 * MIB, clock=lambda: 0.0)
    memory = BlockMemory(window)
    for _ in range(10):
        with memory.block(4 * MIB):
            pass
    assert window.limit_bytes == 8 * MIB
