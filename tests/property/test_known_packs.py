"""Contents of known packs are found alike by searching and in the sorted list, whatever the bytes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from amlctl.core.manifest import Kind, StoredAt
from amlctl.core.pack import Member
from amlctl.localfs.sync_state import KnownPack, KnownPacks, member_rows

# Few different bytes, so that ids stand across the borders of rows as well.
ids = st.binary(min_size=16, max_size=16).map(bytes.hex) | st.lists(
    st.sampled_from([0, 1]), min_size=16, max_size=16
).map(lambda found: bytes(found).hex())
numbers = st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 0x01010101])
members = st.builds(
    Member,
    ids,
    numbers,
    numbers,
    st.booleans(),
)


@given(st.lists(st.lists(members, max_size=8), max_size=4), st.lists(ids, max_size=4))
def test_the_first_pack_that_has_a_content_is_named(packs: list[list[Member]], others: list[str]) -> None:
    expected: dict[str, StoredAt] = {}
    for number, inside in enumerate(packs):
        for member in inside:
            place = StoredAt(Kind.PACK, str(number), member.offset, member.length, member.is_deflated)
            expected.setdefault(member.content_id, place)
    known = KnownPacks([KnownPack(str(number), 0, member_rows(inside)) for number, inside in enumerate(packs)])
    contents = [*expected, *others]
    first = {content: known.place(content) for content in contents}
    for _ in range(70):  # from here on the sorted list answers
        known.place("00" * 16)
    for answers in (first, {content: known.place(content) for content in contents}):
        for content in contents:
            found = answers[content]
            assert (found is None) == (content not in expected)
            assert found is None or found.pack == expected[content].pack
