"""HEAD of a dataset: its written form, the check over it, and how two of them stand to each other."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amlctl.core.head import REMEMBERED_COMMITS, Head, Relation, encode_head, parse_head, relation
from amlctl.errors import IntegrityError, SettingsError

DATASET = "working/x"
FOLDER = "datasets/working/x"
GOLDEN = Path(__file__).parents[2] / "data" / "store"


def key(number: int) -> str:
    return f"{FOLDER}/{number:032x}-{number + 0xAB << 100:032x}.gz"


def commits(count: int, *, start: Head | None = None, first: int = 1) -> list[Head]:
    """HEADs of commits that follow each other."""
    found = [start or Head("", "", store_id="5" * 32)]
    for number in range(first, first + count):
        found.append(Head(f"{number:032x}", key(number), "pack").after(found[-1]))
    return found[1:]


@pytest.mark.parametrize("name", ["HEAD.format-1", "HEAD.format-2"])
def test_every_format_stays_readable(name: str) -> None:
    value = parse_head((GOLDEN / name).read_bytes(), DATASET)
    assert value.snapshot == f"{3:032x}"
    assert value.manifest_key == key(3)
    assert value.layout == "pack"
    if name.endswith("2"):
        assert value == commits(3)[-1]._replace(gc=7)


def test_the_written_form_is_the_golden_one() -> None:
    assert encode_head(commits(3)[-1]._replace(gc=7), DATASET) == (GOLDEN / "HEAD.format-2").read_bytes()


def test_any_other_digit_is_noticed() -> None:
    data = encode_head(commits(3)[-1], DATASET)
    for position, byte in enumerate(data[:-1]):
        other = data[:position] + (b"1" if byte == 0x30 else b"0") + data[position + 1 :]
        with pytest.raises(IntegrityError, match="HEAD of working/x cannot be read"):
            parse_head(other, DATASET)


def test_the_head_of_another_dataset_is_refused() -> None:
    data = encode_head(commits(1)[0], DATASET)
    with pytest.raises(IntegrityError, match="it is the HEAD of working/x"):
        parse_head(data, "working/y")
    with pytest.raises(SettingsError, match="takes working/X for its dataset working/x"):
        parse_head(data, "working/X")
    old = (GOLDEN / "HEAD.format-1").read_bytes()
    with pytest.raises(IntegrityError, match="is not a manifest of its snapshot"):
        parse_head(old, "working/y")


@given(st.data())
def test_no_document_is_more_than_damaged(data: st.DataObject) -> None:
    document = json.loads(encode_head(commits(3)[-1], DATASET))
    member = data.draw(st.sampled_from(sorted(document)))
    junk = st.one_of(st.none(), st.integers(), st.text(), st.lists(st.integers()), st.floats(), st.booleans())
    document[member] = data.draw(junk.filter(lambda value: value != document[member]))
    document["format"] = data.draw(st.sampled_from([1, 2])) if member != "format" else document["format"]
    with suppress(IntegrityError, SettingsError):
        parse_head(json.dumps(document).encode(), DATASET)
        assert document["format"] == 1


def test_deep_nesting_is_damage() -> None:
    with pytest.raises(IntegrityError):
        parse_head(b"[" * 200_000, DATASET)


def test_how_heads_stand_to_each_other() -> None:
    line = commits(40)
    assert relation(line[4], line[4]) is Relation.SAME
    assert relation(line[4], line[5]) is Relation.AHEAD
    assert relation(line[4], line[39]) is Relation.AHEAD
    assert relation(line[9], line[4]) is Relation.BEHIND
    assert relation(line[39], line[4]) is Relation.UNRELATED
    other = commits(6, start=line[4], first=100)
    assert relation(other[5], line[10]) is Relation.UNRELATED
    assert relation(line[10], other[5]) is Relation.UNRELATED
    assert relation(line[4], other[5]) is Relation.AHEAD
    again = commits(1, start=line[5]._replace(), first=5)[0]
    assert relation(line[5], again) is Relation.AHEAD


def test_a_head_of_format_1_counts_as_ahead() -> None:
    old = Head(f"{3:032x}", key(3), "pack")
    line = commits(2, start=Head(f"{3:032x}", key(3), "pack", store_id="5" * 32), first=4)
    assert relation(old, line[1]) is Relation.AHEAD
    assert relation(old, Head(f"{9:032x}", key(9), "pack")) is Relation.AHEAD


def test_the_list_of_commits_is_bounded() -> None:
    assert len(commits(60)[-1].before) == REMEMBERED_COMMITS
