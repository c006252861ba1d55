"""Cutting large files: whatever was edited, the blocks add up to the file, and what stayed is found again."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amlctl.stores.azure_blob import blocks
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
    st.tuples(st.sampled_from(["replace", "insert", "delete", "swap"]), st.integers(0, 60_000), st.integers(0, 9_000)),
    max_size=4,
)


@settings(max_examples=150)
@given(edits, st.sampled_from(["random", "zeros", "text"]), st.integers(0, 60_000))
def test_blocks_are_the_file(edits: list[tuple[str, int, int]], kind: str, size: int) -> None:
    data = {"random": photo_like(size), "zeros": bytes(size), "text": b"a line of text\n" * (size // 15)}[kind]
    old = blocks_of(data, [])
    for what, at, length in edits:
        fresh = photo_like(length, seed=at + length)
        if what == "swap":
            data = data[at:] + data[:at]
        else:
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


def test_any_number_of_blocks_may_be_removed() -> None:
    data = photo_like(400 * DISTANCE)
    old = blocks_of(data, [])
    start = 60 * DISTANCE + 1000
    for count in range(1, 201):
        # Not whole blocks: else borders at fixed distances meet the old ones by themselves.
        assert sent(data[:start] + data[start + count * DISTANCE + 7 :], old) <= 2 * DISTANCE, count


@pytest.mark.parametrize("count", [1, 5, 17, 64, 300, 900])
@pytest.mark.parametrize("place", [0, 50 * DISTANCE + 77])
def test_any_number_of_blocks_may_be_inserted(count: int, place: int) -> None:
    data = photo_like(400 * DISTANCE)
    fresh = photo_like(count * DISTANCE + 5, seed=2)
    assert sent(data[:place] + fresh + data[place:], blocks_of(data, [])) <= len(fresh) + DISTANCE


def test_swapped_halves_send_nothing() -> None:
    data = photo_like(400 * DISTANCE)
    old = blocks_of(data, [])
    assert sent(data[200 * DISTANCE :] + data[: 200 * DISTANCE], old) == 0
    assert sent(data[150 * DISTANCE + 9 :] + data[: 150 * DISTANCE + 9], old) <= DISTANCE


def test_parts_in_another_order_send_their_edges() -> None:
    data = photo_like(400 * DISTANCE)
    parts = [data[at : at + 10 * DISTANCE + 123] for at in range(0, len(data), 10 * DISTANCE + 123)]
    random.Random(4).shuffle(parts)
    assert sent(b"".join(parts), blocks_of(data, [])) <= len(parts) * DISTANCE


def test_old_blocks_stay_found_where_only_some_are_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_SEARCHED", 50)
    data = photo_like(400 * DISTANCE)
    fresh = photo_like(100 * DISTANCE + 1, seed=2)
    edited = fresh + data[: 100 * DISTANCE] + b"+" + data[250 * DISTANCE :] + data[100 * DISTANCE : 250 * DISTANCE]
    assert sent(edited, blocks_of(data, [])) == len(fresh) + 1


def test_equal_anchors_are_distinguished() -> None:
    data = b"".join(
        b"the same head of every block: 32".ljust(40) + photo_like(DISTANCE - 40, seed) for seed in range(99)
    )
    edited = data[: 50 * DISTANCE + 100] + b"+" + data[50 * DISTANCE + 100 :]
    assert sent(edited, blocks_of(data, [])) == DISTANCE + 1


def bytes_read(data: bytes, old: list[Block]) -> int:
    total = 0

    def read(offset: int, size: int) -> bytes:
        nonlocal total
        total += size
        return data[offset : offset + size]

    assert sum(cut(read, len(data), old, distance=DISTANCE)) == len(data)
    return total


def low_entropy(size: int) -> bytes:
    values = random.Random(5).choices(range(4), k=size // 4)
    return b"".join(value.to_bytes(4, "little") for value in values)


@pytest.mark.parametrize("old_kind", ["other", "zeros", "repeated", "numbers"])
@pytest.mark.parametrize("kind", ["random", "zeros", "repeated", "numbers"])
def test_what_is_nowhere_found_costs_little(old_kind: str, kind: str) -> None:
    size = 400 * DISTANCE
    contents = {
        "random": photo_like(size),
        "other": photo_like(size, seed=6),
        "zeros": bytes(size),
        "repeated": photo_like(DISTANCE) * 400,
        "numbers": low_entropy(size),
    }
    data = b"+" + contents[kind]
    assert bytes_read(data, blocks_of(contents[old_kind], [])) <= 3 * len(data)


def test_anchors_without_their_blocks_cost_little() -> None:
    data = photo_like(400 * DISTANCE)
    anchors = b"".join(data[at : at + 32] for at in range(0, len(data), DISTANCE))
    for many in (anchors * 100, anchors[:32] * 40_000):
        assert bytes_read(many, blocks_of(data, [])) <= 10 * len(many)


def test_an_end_that_stayed_is_found_behind_much_that_is_new() -> None:
    data = photo_like(400 * DISTANCE)
    old = blocks_of(data, [])
    for blocks_new in range(280, 320):
        fresh = photo_like(blocks_new * DISTANCE + 1, seed=2)
        assert sent(fresh + data[-DISTANCE:], old) == len(fresh)


def test_a_small_block_that_is_everywhere_does_not_split_the_file() -> None:
    line = photo_like(100)
    data = photo_like(50 * DISTANCE)
    old = blocks_of(data[: 2 * DISTANCE] + line + data[2 * DISTANCE :], blocks_of(data, []))
    assert len(line) in {block.size_bytes for block in old}
    assert len(blocks_of(line * 2000, old)) <= 100


def test_blocks_of_other_programs_match_nothing() -> None:
    data = photo_like(10 * DISTANCE)
    foreign = [Block("MDAwMDAx", DISTANCE), Block("not base64!", DISTANCE)]
    assert sent(data, foreign) == len(data)


def test_more_blocks_than_the_service_takes_are_cut_again() -> None:
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
    assert len(block_id(b"")) == len(block_id(photo_like(1000))) == 60


@settings(max_examples=60)
@given(st.integers(1, 280), st.integers(0, 400), st.integers(0, 3 * DISTANCE), st.booleans())
def test_any_stretch_may_go_and_any_come(first: int, removed: int, inserted: int, is_edited: bool) -> None:
    """Also where the end of the file has changed, too, so that nothing can be counted from there."""
    data = photo_like(300 * DISTANCE)
    fresh = photo_like(inserted, seed=7)
    at, until = first * DISTANCE + 5, min(len(data), (first + removed) * DISTANCE + 11)
    new = data[:at] + fresh + data[until:] + (b"more" if is_edited else b"")
    assert sent(new, blocks_of(data, [])) <= inserted + 3 * DISTANCE


def test_halves_that_change_places_are_found() -> None:
    data = photo_like(300 * DISTANCE)
    assert sent(data[150 * DISTANCE :] + data[: 150 * DISTANCE], blocks_of(data, [])) == 0
    assert sent(data[151 * DISTANCE + 5 :] + data[: 151 * DISTANCE + 5], blocks_of(data, [])) <= 3 * DISTANCE
