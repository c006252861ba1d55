"""What a sync sends: only what the store does not have, in numbers that the dry run gives beforehand."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from amlctl.core.manifest import FileEntry, Kind, Manifest
from amlctl.core.store_keys import head_key
from amlctl.errors import Conflict, NotFound
from amlctl.operations.dataset.listing import stored_names
from amlctl.operations.status import all_datasets, status
from amlctl.operations.sync.sync import SyncResult
from tests.support.clones import DATASET, OPTIONS, Clone, Clones, random_tree
from tests.support.faulty_store import Call, FaultyStore
from tests.support.trees import Tree, age, write_tree

MANIFEST_BYTES = 6_000
"""More than the manifests and HEADs of these tests take."""


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path)


@pytest.fixture
def one(clones: Clones) -> Clone:
    return clones["one"]


def _numbers(result: SyncResult) -> dict[str, object]:
    """What a dry run can know. What really travels (`uploaded_bytes`) and how often it asks is the wire's."""
    document = result.to_json()
    return {name: document[name] for name in document.keys() - {"uploaded_bytes", "requests", "seconds", "dry_run"}}


def _synced_as_foreseen(clone: Clone, **options: Any) -> SyncResult:
    """A dry run changes nothing and says what the sync then does."""
    before = {entry.key: entry for entry in clone.store.list("")}
    foreseen = clone.foresee(**options)
    assert {entry.key: entry for entry in clone.store.list("")} == before
    noticed = clone.status()
    result = clone.sync(**options)
    assert _numbers(foreseen) | {"hashed_bytes": 0} == _numbers(result) | {"hashed_bytes": 0}
    assert (len(noticed.new), len(noticed.modified), len(noticed.deleted)) == (
        result.added,
        result.modified,
        result.deleted,
    )
    assert foreseen.uploaded_bytes <= result.uploaded_bytes <= foreseen.uploaded_bytes * 1.1 + MANIFEST_BYTES
    after = clone.status()
    assert (*after.new, *after.modified, *after.deleted) == ()
    assert (after.remote_moved, after.snapshot) == (False, result.snapshot)
    return result


def test_a_first_sync_sends_everything_once(clones: Clones, one: Clone) -> None:
    tree = random_tree(1)
    one.make(tree)
    result = _synced_as_foreseen(one)
    total = sum(map(len, tree.values()))
    assert (result.files, result.bytes, result.added) == (60, total, 60)
    assert (result.modified, result.deleted, result.unchanged) == (0, 0, 0)
    assert (result.previous, result.reused_bytes, result.hashed_bytes) == (None, 0, total)
    assert result.uploaded_blobs == len(clones.stored_keys("packs/")) + len(clones.stored_keys("objects/")) > 2
    assert clones.stored() == tree


def test_an_unchanged_repeat_asks_once(one: Clone) -> None:
    one.make(random_tree(1))
    first = one.sync()
    settled = one.sync_until_settled()
    again = one.sync()
    assert (again.requests, again.uploaded_bytes, again.hashed_bytes) == (1, 0, 0)
    assert (again.snapshot, again.previous, again.unchanged) == (first.snapshot, first.snapshot, 60)
    assert settled.snapshot == first.snapshot
    one.store.traffic.requests = 0
    assert one.status().new == ()
    assert one.store.traffic.requests == 1
    known = all_datasets(one)
    one.store.traffic.requests = 0
    assert status(one, DATASET, OPTIONS, head=known[DATASET]).snapshot == first.snapshot
    assert one.store.traffic.requests == 0


def test_one_edit_sends_one_small_pack(one: Clone) -> None:
    one.make(random_tree(1))
    first = one.sync()
    (one.root / "d1/f1").write_bytes(b"edited" * 50)
    result = _synced_as_foreseen(one)
    assert (result.modified, result.added, result.deleted, result.unchanged) == (1, 0, 0, 59)
    assert (result.uploaded_blobs, result.previous) == (1, first.snapshot)
    assert result.uploaded_bytes < 300 + MANIFEST_BYTES
    assert result.reused_bytes == result.bytes - 300


@pytest.mark.parametrize("how", ["rename", "copy", "move all"])
def test_known_content_under_other_paths_sends_a_manifest_only(clones: Clones, one: Clone, how: str) -> None:
    tree = random_tree(1)
    one.make(tree)
    one.sync()
    if how == "copy":
        shutil.copytree(one.root / "d1", one.root / "copy")
    elif how == "rename":
        (one.root / "d1").rename(one.root / "other name")
    else:
        for folder in list(one.root.iterdir()):
            folder.rename(one.root / f"moved-{folder.name}")
    result = _synced_as_foreseen(one)
    assert (result.uploaded_blobs, result.reused_bytes) == (0, result.bytes)
    assert result.uploaded_bytes < MANIFEST_BYTES
    assert clones.stored() == one.tree


def test_a_renamed_dataset_sends_a_manifest_only(clones: Clones, one: Clone) -> None:
    tree = random_tree(1)
    one.make(tree)
    one.sync()
    one.root.rename(one.root.with_name("renamed"))
    result = one.sync("working/renamed")
    assert (result.uploaded_blobs, result.added) == (0, 60)
    # And so does a copy by a machine that has uploaded nothing.
    two = clones["two"]
    two.make(tree, "raw/copy")
    assert two.sync("raw/copy").uploaded_blobs == 0
    assert clones.stored("raw/copy") == tree


def test_a_command_reads_other_datasets_once(clones: Clones, one: Clone) -> None:
    two = clones["two"]
    for seed in range(8):
        two.make(random_tree(seed, most=3_000), f"others/{seed}")
        two.sync(f"others/{seed}")
    results = []
    for seed in range(3):
        one.make(random_tree(seed, 20, most=3_000) | {"own": b"%d" % seed * 900}, f"mine/{seed}")
        results.append(one.sync(f"mine/{seed}"))
    assert [result.uploaded_blobs for result in results] == [1, 1, 1]
    assert results[0].requests > 2 * 8 > max(result.requests for result in results[1:])


def test_a_dataset_of_a_newer_version_does_not_stop_another_one(clones: Clones, one: Clone) -> None:
    one.make({"a": b"1"}, "newer")
    one.sync("newer")
    clones.store.put(head_key("newer"), b'{"format": 3}', replace=True)
    one.make({"b": b"2"})
    assert one.sync().added == 1
    assert stored_names(clones.store).datasets == ["newer", DATASET]


def test_a_touched_file_is_not_a_change(one: Clone) -> None:
    one.make(random_tree(1))
    first = one.sync()
    age(one.root)
    result = _synced_as_foreseen(one)
    assert (result.snapshot, result.previous) == (first.snapshot, first.snapshot)
    assert (result.uploaded_blobs, result.uploaded_bytes, result.modified) == (0, 0, 0)


def test_the_same_content_is_sent_once(clones: Clones, one: Clone) -> None:
    small, large = random.Random(3).randbytes(900), random.Random(4).randbytes(9_000)
    one.make({f"small{n}": small for n in range(20)} | {f"large{n}": large for n in range(3)})
    result = _synced_as_foreseen(one)
    assert (len(clones.stored_keys("packs/")), len(clones.stored_keys("objects/"))) == (1, 1)
    assert (result.uploaded_blobs, result.files) == (2, 23)
    assert result.reused_bytes == 19 * 900 + 2 * 9_000


def test_a_large_file_is_an_object_and_a_small_one_a_member(clones: Clones, one: Clone) -> None:
    one.make({f"small{n}": bytes([n]) * 3_999 for n in range(8)} | {"at the limit": b"L" * 4_000})
    one.sync()
    manifest = clones.manifest()
    kinds = {entry.path: manifest.places[entry.content_id].kind for entry in manifest.entries}
    assert kinds.pop("at the limit") == Kind.OBJECT
    assert set(kinds.values()) == {Kind.PACK}
    [key] = clones.stored_keys("objects/")
    assert clones.path(key).read_bytes() == b"L" * 4_000


def test_a_dataset_of_few_files_is_not_packed(clones: Clones, one: Clone) -> None:
    one.make({f"f{n}": b"%d" % n for n in range(7)} | {"empty": b""})
    result = _synced_as_foreseen(one)
    assert (result.uploaded_blobs, result.layout) == (7, "pack")
    assert (len(clones.stored_keys("objects/")), len(clones.stored_keys("packs/"))) == (7, 0)
    (one.root / "f7").write_bytes(b"one more makes a pack worth while")
    assert _synced_as_foreseen(one).uploaded_blobs == 1
    assert len(clones.stored_keys("packs/")) == 1
    assert clones.stored() == one.tree


def _dead_share(manifest: Manifest) -> float:
    live: dict[str, FileEntry] = {entry.content_id: entry for entry in manifest.entries}
    held = sum(
        place.length for content, place in manifest.places.items() if content in live and place.kind is Kind.PACK
    )
    return 1 - held / sum(manifest.pack_sizes.values())


def test_packs_with_many_dead_bytes_are_repacked(clones: Clones, one: Clone) -> None:
    """Random deletions and changes, sync by sync: never more than twice the change is sent, and what is dead does
    not pile up."""
    rng = random.Random(4)
    tree = random_tree(4, 120, most=3_000)
    one.make(tree)
    one.sync()
    shares = []
    repacked = 0
    for round_number in range(9):
        for path in rng.sample(sorted(tree), 14):
            del tree[path]
        changed = {path: rng.randbytes(2_500) for path in rng.sample(sorted(tree), 8)}
        changed |= {f"new/{round_number}-{n}": rng.randbytes(2_500) for n in range(10)}
        tree |= changed
        one.make(tree)
        result = _synced_as_foreseen(one)
        change = sum(map(len, changed.values()))
        sent = result.bytes - result.reused_bytes
        assert change <= sent <= 2 * change
        repacked += sent > change
        shares.append(_dead_share(clones.manifest()))
    assert clones.stored() == tree
    assert repacked >= 2
    assert max(shares) < 0.6
    assert min(shares[-4:]) < 0.45


def test_deleting_alone_sends_a_manifest_only(clones: Clones, one: Clone) -> None:
    one.make(random_tree(1))
    one.sync()
    for path in sorted(one.root.rglob("f*"))[:40]:
        path.unlink()
    result = _synced_as_foreseen(one, yes=True)
    assert (result.deleted, result.uploaded_blobs) == (40, 0)
    assert clones.stored() == one.tree


def test_layouts_can_be_switched(clones: Clones, one: Clone) -> None:
    tree = random_tree(1)
    one.make(tree)
    first = _synced_as_foreseen(one)
    mirrored = _synced_as_foreseen(one, layout="mirror")
    assert (mirrored.snapshot, mirrored.layout, mirrored.uploaded_blobs) == (first.snapshot, "mirror", 60)
    assert {clones.path(f"mirror/{DATASET}/{path}").read_bytes() for path in tree} == set(tree.values())
    assert clones.stored() == tree
    # `auto` stays with the mirror, and an unchanged one asks once.
    (one.root / "d1/f1").write_bytes(b"edited")
    assert _synced_as_foreseen(one).layout == "mirror"
    assert clones.stored() == one.tree
    packed = _synced_as_foreseen(one, layout="pack")
    # All but the edit lies in the old packs still.
    assert (packed.layout, packed.uploaded_blobs) == ("pack", 1)
    assert clones.stored() == one.tree


@pytest.mark.parametrize("layout", ["auto", "pack", "mirror"])
def test_numbers_add_up_over_random_edits(clones: Clones, one: Clone, layout: str) -> None:
    rng = random.Random(layout)
    tree: Tree = random_tree(2, 30)
    for _ in range(6):
        for path in rng.sample(sorted(tree), 4):
            tree.pop(path)
        tree |= {f"d{rng.randrange(9)}/n{rng.randrange(20)}": rng.randbytes(rng.randrange(6_000)) for _ in range(6)}
        one.make(tree)
        result = _synced_as_foreseen(one, layout=layout)
        assert result.added + result.modified + result.unchanged == result.files == len(tree)
        assert result.bytes == sum(map(len, tree.values()))
        assert clones.stored() == tree


def test_what_another_machine_synced_since_is_kept(clones: Clones, one: Clone) -> None:
    two = clones["two"]
    one.make(random_tree(1))
    one.sync()
    two.pull()
    (two.root / "d1/f1").write_bytes(b"theirs")
    (two.root / "d2/f2").unlink()
    two.sync()
    (one.root / "d3/f3").write_bytes(b"ours")
    assert one.status().remote_moved
    result = one.sync()
    expected = two.tree | {"d3/f3": b"ours"}
    assert clones.stored() == expected
    assert (result.modified, result.deleted) == (1, 0)
    # Here nothing was touched; what the others did comes with a pull, and does not count as our change.
    assert (one.root / "d2/f2").exists()
    assert any("are not here yet" in message for message in one.messages)
    assert result.not_here == 2
    assert one.sync().snapshot == result.snapshot
    one.pull()
    assert one.tree == expected


def test_both_changed_the_same_file(clones: Clones, one: Clone) -> None:
    two = clones["two"]
    one.make({f"f{n}": b"%d" % n for n in range(10)})
    one.sync()
    two.pull()
    for clone, word in ((two, b"two"), (one, b"one")):
        write_tree(clone.root, {"f1": word, "f2": word + b"!", "same": b"same", f"only {word.decode()}": word})
    two.sync()
    with pytest.raises(Conflict) as caught:
        one.sync()
    assert sorted(caught.value.details) == ["f1", "f2"]
    assert "--ours" in caught.value.hint
    with pytest.raises(Conflict):
        one.foresee()
    assert clones.stored() == two.tree
    one.sync(theirs=True)
    kept = clones.stored()
    assert kept == two.tree | {"only one": b"one"}
    assert (one.root / "f1").read_bytes() == b"one"
    # What the store won is not sent back by the next sync, and comes with the next pull.
    one.sync()
    assert clones.stored() == kept
    one.pull()
    assert one.tree == kept


def test_ours_makes_the_store_hold_what_is_here(clones: Clones, one: Clone) -> None:
    two = clones["two"]
    one.make({f"f{n}": b"%d" % n for n in range(10)})
    one.sync()
    two.pull()
    (two.root / "f1").write_bytes(b"two")
    two.sync()
    (one.root / "f1").write_bytes(b"one")
    one.sync(ours=True)
    assert clones.stored() == one.tree
    assert one.tree["f1"] == b"one"


def test_a_sync_of_nothing(one: Clone) -> None:
    with pytest.raises(NotFound, match="nor is it in the store") as caught:
        one.sync()
    assert caught.value.hint == "check the path"
    near = one.root.with_name(f"{one.root.name}s")
    near.mkdir(parents=True)
    with pytest.raises(NotFound) as caught:
        one.sync()
    assert caught.value.hint.endswith(f"/{near.name}?")


def test_one_dataset_as_a_link_to_a_folder_elsewhere(clones: Clones, one: Clone, tmp_path: Path) -> None:
    write_tree(tmp_path / "disk", {"a": b"1", "b/c": b"2"})
    one.root.parent.mkdir(parents=True)
    os.symlink(tmp_path / "disk", one.root)
    one.sync()
    assert clones.stored() == {"a": b"1", "b/c": b"2"}


def test_overlapping_datasets_are_reported(clones: Clones) -> None:
    one = clones["one"]
    one.make(random_tree(1))
    one.sync()
    one.make({"a": b"a"}, f"{DATASET}-2")
    one.sync(f"{DATASET}-2")
    assert not one.messages
    part = f"{DATASET}/d1"
    one.sync(part)
    assert one.messages == [f"{part} overlaps dataset {DATASET}; shared files belong to both"]
    whole = DATASET.partition("/")[0]
    one.sync(whole)
    assert [message.split()[3].rstrip(";") for message in one.messages[1:]] == [DATASET, f"{DATASET}-2", part]


@pytest.mark.parametrize("lost", [3, 1000])
def test_the_loser_of_the_race_for_head_plans_again_and_finally_fails(clones: Clones, one: Clone, lost: int) -> None:
    other = clones["other"]
    one.make({"ours": b"1"})
    numbers = iter(range(lost))

    def act(call: Call) -> None:
        if (
            call.key.endswith("HEAD")
            and call.method == "swap"
            and not call.is_done
            and (number := next(numbers, None)) is not None
        ):
            other.make({"theirs": b"%d" % number})
            other.sync(ours=True)

    faulty = Clone(one.project.root, FaultyStore(one.store, act))
    if lost < 8:
        faulty.sync()
        assert clones.stored() == {"ours": b"1", "theirs": b"%d" % (lost - 1)}
    else:
        with pytest.raises(Conflict, match="changed by someone else") as caught:
            faulty.sync()
        assert caught.value.hint == "run the command again"
        assert clones.stored() == {"theirs": b"7"}
    assert sum("planning again" in message for message in faulty.messages) == min(lost, 7)
