"""Cutting large files: whatever was edited, the blocks add up to the file, and what stayed is found again."""

from __future__ import annotations

import random
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from amlctl.stores.azure_blob.blocks import MAX_BLOCKS, Block, block_id, block_size, cut

DISTANCE = 1 << 12


def reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, size: data[offset : offset + size]


def blocks_of(data: bytes, old: list[Block], **limits: int) -> list[Block]:
    found, at = [], 0
    for size in cut(reader(data), len(data), old, distance=DISTANCE, **limits):
        found.append(Block(block_id(data[at : at + size]), size))
        at += size
    assert at == len(data)
    return found


def sent(data: bytes, old: list[Block]) -> int:
    there = {block.id for block in old}
    return sum(block.size_bytes for block in blocks_of(data, old) if block.id not in there)


def photo_like(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


edits = st.lists(
    st.tuples(st.sampled_from(["replace", "insert", "delete"]), st.integers(0, 60_000), st.integers(0, 9_000)),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(edits, st.sampled_from(["random", "zeros", "text"]), st.integers(0, 60_000))
def test_blocks_are_the_file(edits: list[tuple[str, int, int]], kind: str, size: int) -> None:
    data = {"random": photo_like(size), "zeros": bytes(size), "text": b"a line of text\n" * (size // 15)}[kind]
    old = blocks_of(data, [])
    for what, at, length in edits:
        fresh = photo_like(length, seed=at + length)
        data = data[:at] + (b"" if what == "delete" else fresh) + data[at + (0 if what == "insert" else length) :]
        new = blocks_of(data, old)
        # A later reader finds each block's bytes by its place in the list.
        at_byte = 0
        for block in new:
            assert block.id == block_id(data[at_byte : at_byte + block.size_bytes])
            assert block.size_bytes <= DISTANCE
            at_byte += block.size_bytes
        old = new


def test_an_edit_sends_what_it_touches() -> None:
    data = photo_like(100 * DISTANCE)
    old = blocks_of(data, [])
    edited = data[: 50 * DISTANCE + 10] + bytes(20) + data[50 * DISTANCE + 30 :]
    assert sent(edited, old) == DISTANCE


def test_an_insertion_at_the_front_sends_little() -> None:
    data = photo_like(100 * DISTANCE)
    assert sent(b"x" * 100 + data, blocks_of(data, [])) == 100


def test_a_large_insertion_is_passed_over() -> None:
    data = photo_like(100 * DISTANCE)
    fresh = photo_like(9 * DISTANCE, seed=2)
    assert sent(fresh + data, blocks_of(data, [])) == len(fresh)
    assert sent(data[:1000] + fresh + data[1000:], blocks_of(data, [])) == len(fresh) + DISTANCE


def test_removed_bytes_cost_the_block_they_were_in() -> None:
    data = photo_like(100 * DISTANCE)
    old = blocks_of(data, [])
    assert sent(data[2 * DISTANCE :], old) == 0
    assert sent(data[100:], old) == DISTANCE - 100


def test_an_appended_file_sends_its_end() -> None:
    data = photo_like(100 * DISTANCE)
    assert sent(data + b"more", blocks_of(data, [])) == 4


def test_several_edits_each_cost_their_own() -> None:
    data = photo_like(200 * DISTANCE)
    edited = b"front" + data[: 70 * DISTANCE] + b"middle" + data[70 * DISTANCE :] + b"end"
    assert sent(edited, blocks_of(data, [])) == len(b"front" + b"middle" + b"end")


def test_an_overwritten_stretch_keeps_what_follows() -> None:
    data = photo_like(200 * DISTANCE)
    fresh = photo_like(60 * DISTANCE, seed=3)
    edited = data[: 70 * DISTANCE] + fresh + data[130 * DISTANCE :]
    assert sent(edited, blocks_of(data, [])) == len(fresh)


def test_blocks_of_other_programs_match_nothing() -> None:
    data = photo_like(10 * DISTANCE)
    foreign = [Block("MDAwMDAx", DISTANCE), Block("not base64!", DISTANCE)]
    assert sent(data, foreign) == len(data)


def test_more_blocks_than_the_service_takes_are_cut_anew() -> None:
    data = photo_like(10 * DISTANCE)
    old = blocks_of(data, [])
    for at in range(0, 8 * DISTANCE, DISTANCE // 2):
        data = data[: at + 7] + b"!" + data[at + 7 :]
        old = blocks_of(data, old, max_blocks=16)
        assert len(old) <= 16


def test_block_sizes_stay_far_from_the_limit() -> None:
    assert block_size(1) == 4 << 20
    assert block_size(10 << 30) == 4 << 20
    assert (100 << 40) / block_size(100 << 40) < MAX_BLOCKS / 2
    assert len(block_id(b"")) == len(block_id(photo_like(1000))) == 64
