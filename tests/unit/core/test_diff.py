"""Changes between lists of entries, three-way merges, and paths that exclude each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amlctl.core.content_id import content_id
from amlctl.core.diff import Merge, Side, arrived, colliding_names, diff, displaced, merge
from amlctl.core.manifest import ONE_FILE, FileEntry, entry_order


def _sorted(entries: list[FileEntry]) -> list[FileEntry]:
    return sorted({entry.path: entry for entry in entries}.values(), key=entry_order)


def _entries(**contents: str) -> list[FileEntry]:
    """A file for each path, in which `__` stands for a slash; an empty text is an empty folder."""
    return _sorted(
        [
            FileEntry(path.replace("__", "/") + ("" if text else "/"), len(text), False, content_id(text.encode()))
            for path, text in contents.items()
        ]
    )


flat = st.lists(
    st.builds(
        FileEntry,
        st.sampled_from("abcdef"),
        st.just(1),
        st.just(False),
        st.sampled_from([content_id(b"1"), content_id(b"2"), content_id(b"3")]),
    ),
    max_size=6,
).map(_sorted)


@given(flat, flat, flat)
def test_merging_loses_no_change(base: list[FileEntry], ours: list[FileEntry], theirs: list[FileEntry]) -> None:
    merged = merge(base, ours, theirs)
    was, mine, other = ({e.path: e for e in side} for side in (base, ours, theirs))
    result = {e.path: e for e in merged.entries}
    for path in "abcdef":
        b, o, t = was.get(path), mine.get(path), other.get(path)
        if path in merged.conflicts:
            assert o != b
            assert t != b
            assert o != t
        elif o != b:
            assert result.get(path) == o
        else:
            assert result.get(path) == t


@given(flat, flat)
def test_the_unchanged_side_takes_all(base: list[FileEntry], side: list[FileEntry]) -> None:
    assert list(merge(base, base, side).entries) == side
    assert list(merge(base, side, base).entries) == side
    assert merge(base, side, side).conflicts == []


@given(flat, flat, flat)
def test_preferring_a_side_leaves_no_conflict(
    base: list[FileEntry], ours: list[FileEntry], theirs: list[FileEntry]
) -> None:
    assert not merge(base, ours, theirs, prefer=Side.OURS).conflicts
    assert not merge(base, ours, theirs, prefer=Side.THEIRS).conflicts


@given(flat, flat)
def test_a_diff_names_every_path_once(old: list[FileEntry], new: list[FileEntry]) -> None:
    changes = diff(old, new)
    assert set(changes.added) == {e.path for e in new} - {e.path for e in old}
    assert set(changes.deleted) == {e.path for e in old} - {e.path for e in new}
    assert len(changes.added) + len(changes.modified) + changes.unchanged == len(new)
    assert changes.is_empty == (old == new)
    assert changes.count == len(changes.added) + len(changes.modified) + len(changes.deleted)


def test_a_changed_executable_bit_is_a_modification() -> None:
    before = _entries(a="x")
    after = [before[0]._replace(is_executable=True)]
    assert diff(before, after).modified == ["a"]


def _paths(merged: Merge) -> list[str]:
    return [entry.path for entry in merged.entries]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (_entries(a="file"), _entries(a__b="inside")),
        (_entries(a__b="inside"), _entries(a="file")),
    ],
)
def test_a_file_where_the_other_side_made_a_folder_is_a_conflict(
    ours: list[FileEntry], theirs: list[FileEntry]
) -> None:
    assert merge([], ours, theirs).conflicts == ["a"]
    assert _paths(merge([], ours, theirs, prefer=Side.OURS)) == [ours[0].path]
    assert _paths(merge([], ours, theirs, prefer=Side.THEIRS)) == [theirs[0].path]


def test_one_file_excludes_all_others() -> None:
    one = [FileEntry(ONE_FILE, 1, False, content_id(b"1"))]
    assert merge([], one, _entries(a="x")).conflicts == [ONE_FILE]


def test_the_mark_of_an_empty_folder_goes_when_a_file_comes() -> None:
    merged = merge(_entries(a=""), _entries(a=""), _entries(a__b="x"))
    assert (_paths(merged), merged.conflicts) == (["a/b"], [])
    both = merge([], _entries(a=""), _entries(a__b="x"))
    assert (_paths(both), both.conflicts) == (["a/b"], [])


def test_what_differs_from_ours_is_named() -> None:
    base, ours, theirs = _entries(a="1", b="1", c="1"), _entries(a="1", b="2", c="1"), _entries(a="3", b="1")
    merged = merge(base, ours, theirs)
    assert merged.taken_from_theirs == ["a", "c"]
    assert list(merged.entries) == _entries(a="3", b="2")


def test_what_an_interrupted_transfer_has_done_is_agreed() -> None:
    base, target = _entries(a="1", b="1", d__e="1"), _entries(a="2", b="2", c="2")
    here = _entries(a="2", b="1", d="")
    assert list(arrived(base, here, target)) == here


def test_an_edit_during_an_interrupted_transfer_is_not_agreed() -> None:
    base, target = _entries(a="1"), _entries(a="2")
    assert list(arrived(base, _entries(a="mine"), target)) == base


@pytest.mark.parametrize(
    ("before", "written", "kept", "gone"),
    [
        (["a"], ["a/b"], ["a/b"], {"a"}),
        (["a/b", "a/c/d", "e"], ["a"], ["a", "e"], {"a/b", "a/c/d"}),
        (["x/y"], [ONE_FILE], [ONE_FILE], {"x/y"}),
        ([ONE_FILE], ["x/y"], ["x/y"], {ONE_FILE}),
        (["readme.ME"], ["README.ME"], ["README.ME"], {"readme.ME"}),
        (["readme.ME"], ["README.ME"], ["README.ME", "readme.ME"], set()),
        (["caf\u00e9"], ["cafe\u0301"], ["cafe\u0301"], {"caf\u00e9"}),
        (["a", "b"], ["a"], ["a"], set()),
    ],
)
def test_what_has_to_go_first(before: list[str], written: list[str], kept: list[str], gone: set[str]) -> None:
    assert displaced(before, written, kept) == gone


def test_names_that_some_file_systems_take_for_one() -> None:
    paths = ["A", "a", "b", "caf\u00e9", "cafe\u0301"]
    entries = [FileEntry(path, 1, False, content_id(b"1")) for path in paths]
    assert colliding_names(entries) == [("A", "a"), ("caf\u00e9", "cafe\u0301")]
    assert colliding_names(entries[1:3]) == []
