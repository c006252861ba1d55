"""A plan sends each new content once, and never more than twice what has changed."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from amlctl.core.content_id import content_id
from amlctl.core.manifest import (
    MIRROR,
    OBJECT,
    FileEntry,
    Kind,
    Manifest,
    StoredAt,
    empty_manifest,
    entry_order,
    needs_no_bytes,
)
from amlctl.core.sync_plan import Layout, plan_sync

sizes = st.integers(0, 3000)
entries = st.lists(st.tuples(st.sampled_from([f"p{i}" for i in range(30)]), sizes), max_size=30).map(
    lambda pairs: sorted(
        {p: FileEntry(p, s, False, content_id(b"%d" % s) if s else content_id(b"")) for p, s in pairs}.values(),
        key=entry_order,
    )
)
layouts = st.builds(Layout, st.sampled_from(["auto", "pack"]), st.just(1000), st.integers(1, 5000))


def _nothing(asked: object) -> dict[str, StoredAt]:
    return {}


@given(entries, entries, layouts)
def test_a_plan_sends_each_new_content_once(local: list[FileEntry], stored: list[FileEntry], layout: Layout) -> None:
    places = {e.content_id: OBJECT for e in stored if not needs_no_bytes(e)}
    plan = plan_sync(local, Manifest("d", "pack", stored, places, {}), layout, _nothing)
    sent = [e.content_id for pack in plan.packs for e in pack] + [e.content_id for e in plan.files]
    needed = {e.content_id for e in local if not needs_no_bytes(e)}
    assert len(sent) == len(set(sent))
    assert set(sent) == needed - places.keys()
    assert needed & plan.places.keys() == needed & places.keys()


@given(entries, layouts)
def test_packs_are_full_but_for_the_last(local: list[FileEntry], layout: Layout) -> None:
    plan = plan_sync(local, empty_manifest("d"), layout, _nothing)
    for pack in plan.packs[:-1]:
        assert sum(e.size_bytes + 200 for e in pack) >= layout.pack_size
    assert all(pack for pack in plan.packs)
    assert [e for pack in plan.packs for e in pack] == sorted((e for p in plan.packs for e in p), key=entry_order)


@given(entries, st.integers(0, 29))
def test_repacking_never_doubles_more_than_the_change(local: list[FileEntry], dead: int) -> None:
    """A pack with dead bytes: the live rest is sent again only up to the size of the change."""
    live = {e.content_id: e for e in local if not needs_no_bytes(e)}
    kept = dict(list(live.items())[: max(0, len(live) - dead)])
    size = sum(e.size_bytes + 200 for e in kept.values()) + 100_000
    places = {c: StoredAt(Kind.PACK, "a" * 32, 0, e.size_bytes) for c, e in kept.items()}
    head = Manifest("d", "pack", list(kept.values()), places, {"a" * 32: size})
    plan = plan_sync(local, head, Layout("pack", 10_000, 1 << 20), _nothing)
    change = sum(e.size_bytes for c, e in live.items() if c not in kept)
    again = sum(e.size_bytes for pack in plan.packs for e in pack if e.content_id in plan.repacked)
    assert again <= change
    assert plan.send_bytes <= 2 * change


def test_a_dataset_of_few_files_is_not_packed() -> None:
    few = [FileEntry(f"f{i}", 10, False, content_id(b"%d" % i)) for i in range(7)]
    plan = plan_sync(few, empty_manifest("d"), Layout(), _nothing)
    assert (len(plan.packs), len(plan.files)) == (0, 7)
    eight = [*few, FileEntry("f7", 10, False, content_id(b"7"))]
    plan = plan_sync(eight, empty_manifest("d"), Layout(), _nothing)
    assert (len(plan.packs), len(plan.files)) == (1, 0)


def test_files_from_a_size_on_are_sent_alone() -> None:
    small = [FileEntry(f"s{i}", 999, False, content_id(b"%d" % i)) for i in range(8)]
    large = FileEntry("t", 1000, False, content_id(b"t"))
    plan = plan_sync([*small, large], empty_manifest("d"), Layout("auto", 1000, 5000), _nothing)
    assert [list(pack) for pack in plan.packs] == [small[:5], small[5:]]
    assert plan.files == [large]
    assert (plan.send_files, plan.send_bytes, plan.layout) == (9, 8 * 999 + 1000, "pack")


def test_what_the_store_has_besides_is_asked_for_once_and_reused() -> None:
    wanted = [FileEntry(f"f{i}", 10, False, content_id(b"%d" % i)) for i in range(3)]
    place = StoredAt(Kind.PACK, "b" * 32, 0, 10)
    asked: list[list[FileEntry]] = []

    def known(new: Sequence[FileEntry]) -> dict[str, StoredAt]:
        asked.append(list(new))
        return {wanted[1].content_id: place}

    head = Manifest("d", "pack", wanted[:1], {wanted[0].content_id: OBJECT}, {})
    plan = plan_sync(wanted, head, Layout(), known)
    assert asked == [wanted[1:]]
    assert plan.files == [wanted[2]]
    assert plan.places == {wanted[0].content_id: OBJECT, wanted[1].content_id: place}
    assert plan.reused_bytes == 20


def test_plain_files_of_a_mirror_do_not_stand_for_packs_or_objects() -> None:
    entry = FileEntry("f", 10, False, content_id(b"f"))
    head = Manifest("d", "mirror", [entry], {entry.content_id: MIRROR}, {})
    assert plan_sync([entry], head, Layout("pack"), _nothing).send_files == 1
