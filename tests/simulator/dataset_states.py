"""States of a store and its clones that orders start from, and what is asked of datasets afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from amlctl.core.events import null_sink
from amlctl.core.store_keys import dataset_folder, head_key
from amlctl.errors import NotFound
from amlctl.operations.dataset.removal import remove
from amlctl.operations.dataset.removal import restore as restore_removed
from amlctl.operations.store.gc import gc
from amlctl.operations.store.needed import KeepRules
from amlctl.snapshots.heads import find_head, read_head
from amlctl.stores.contract import Store
from tests.simulator import checks, virtual
from tests.simulator.checks import Broken
from tests.simulator.scenario import BASE, BIG, EDITS_B, LATE_A, NEWER, NEWER_LIST, OTHER, Edits, Scenario, now
from tests.simulator.world import DATASET, World


def old_packs(scenario: Scenario, world: World) -> None:
    """Clone `a` has sent contents long ago that nothing names any more, and remembers their packs."""
    old = {f"old/{number}": b"old %d" % number for number in range(4)} | {"old/big": BIG + b"old"}
    world.edit("a", old)
    world.sync("a", layout=scenario.layout)
    world.edit("a", dict.fromkeys(old))
    world.sync("a", layout=scenario.layout)
    forget_old_snapshots(world)
    for clone in scenario.clones:
        world.pull(clone)


def cut_packs(scenario: Scenario, world: World) -> None:
    """As `old_packs`, but a power cut has cut off what they hold."""
    needed = {key for key in world.store.values if key.startswith(("packs/", "objects/"))}
    old_packs(scenario, world)
    for key, value in list(world.store.values.items()):
        if key.startswith(("packs/", "objects/")) and key not in needed:
            world.store.values[key] = value._replace(data=value.data[:3])


def collect_but_one(world: World, store: Store) -> object:
    """A gc that keeps one snapshot, not ten: what is about to be committed is not among them by chance."""
    return gc(store, KeepRules(now(), snapshots=1), delete=True, sink=null_sink)


def collect_at_once(world: World, store: Store) -> object:
    """A gc for which nothing is too young, so that what was removed goes."""
    clock = virtual.host().now
    return gc(store, KeepRules(now(), snapshots=1, young_s=1, removed_s=1), delete=True, sink=null_sink, clock=clock)


def remove_dataset(world: World, store: Store) -> object:
    return remove(store, DATASET, now=now(), is_sure=True)


def restore_dataset(world: World, store: Store) -> object:
    return restore_removed(store, DATASET, null_sink)


def removed(scenario: Scenario, world: World) -> None:
    remove_dataset(world, world.store)


def restore_if_removed(world: World) -> None:
    """Where a gc was faster, `a` has all of it."""
    head = find_head(world.store, DATASET)
    if head is not None and not head.removed_at and not head.is_fence:
        return
    try:
        restore_dataset(world, world.store)
    except NotFound:
        world.sync("a", force=True)


def can_be_restored(world: World, results: Mapping[str, Any]) -> None:
    """A gc that keeps to its defaults deletes nothing of what was removed a moment ago."""
    if results.get("r") is not None and checks.removed_tree(world.store, DATASET) is None:
        raise Broken("it was removed just now, and cannot be restored")


def sync_again_as_mirror(world: World) -> object:
    return world.sync("a", force=True, layout="mirror")


def restored_is_whole(world: World, results: Mapping[str, Any]) -> None:
    """What was restored is what HEAD names, and it is not removed again by itself."""
    if results.get("r") is not None and DATASET not in checks.all_heads(world.store):
        raise Broken("it was restored, but HEAD names nothing")


def swapped_heads(scenario: Scenario, world: World) -> None:
    """HEAD is that of another dataset, as after a restore of single files from a backup."""
    world.edit("a", {"z": b"of another dataset"}, OTHER)
    world.sync("a", dataset=OTHER)
    world.store.values[head_key(DATASET)] = world.store.values[head_key(OTHER)]


def not_believed(world: World, results: Mapping[str, Any]) -> None:
    """No command does anything with it."""
    if results:
        raise Broken(f"{', '.join(results)} ended well with the HEAD of another dataset")


def folder_gone(scenario: Scenario, world: World) -> None:
    """Clone `b` is behind, and its folder was removed as a whole."""
    behind(scenario, world)
    shutil.rmtree(world.root("b"))


def forget_old_snapshots(world: World) -> None:
    """As if ten more had been synced and collected since; what they alone named is still there."""
    for dataset in checks.datasets(world.store):
        kept = read_head(world.store, dataset)
        assert kept is not None
        folder = dataset_folder(dataset)
        for key in [key for key in world.store.values if key.startswith(f"{folder}/") and key.endswith(".gz")]:
            if key != kept.manifest_key:
                del world.store.values[key]


def stale_clone(scenario: Scenario, world: World) -> None:
    """Clone `b` is one snapshot behind, and that snapshot's list has gone from the store."""
    world.edit("a", NEWER_LIST)
    world.sync("a", layout=scenario.layout)
    forget_old_snapshots(world)


def behind(scenario: Scenario, world: World) -> None:
    """Clone `b` is one snapshot behind."""
    world.edit("a", NEWER)
    world.sync("a", layout=scenario.layout)


def damaged_pack(scenario: Scenario, world: World) -> None:
    """The packs and objects of HEAD were cut to nothing, as by a power cut."""
    for key, value in list(world.store.values.items()):
        if key.startswith(("packs/", "objects/")):
            world.store.values[key] = value._replace(data=value.data[:1])


def repair(world: World) -> object:
    return world.sync("a", repair=True)


def copied_dataset(scenario: Scenario, world: World) -> None:
    """A second dataset, without a HEAD, that consists of what the first one once was."""
    old_packs(scenario, world)
    old = {f"{number}": b"old %d" % number for number in range(4)} | {"big": BIG + b"old"}
    world.edit("a", old, OTHER)


def new_dataset(scenario: Scenario, world: World) -> None:
    world.edit("a", {"n1": b"new 1", "n2": b"new 2", "n3": b"new 3", "big": BIG + b"new"}, OTHER)


def other_is_whole(world: World, _: Mapping[str, Any]) -> None:
    """The second dataset, synced again if it must be, is what `a` has."""
    world.sync("a", dataset=OTHER)
    found = checks.all_heads(world.store)[OTHER]
    if wrong := checks.differences(found, world.tree("a", OTHER)):
        raise Broken(f"HEAD of {OTHER}: {wrong}")


def other_at_once(world: World, results: Mapping[str, Any]) -> None:
    """A sync that has said yes has sent everything."""
    if results.get("a") is None:
        return
    found = checks.all_heads(world.store).get(OTHER, {})
    if wrong := checks.differences(found, world.tree("a", OTHER)):
        raise Broken(f"HEAD of {OTHER} after a sync that ended well: {wrong}")


FOLLOWED: Edits = {"d/b": b"two, by a after b", "new b": None}


def fresh_clone(scenario: Scenario, world: World) -> None:
    """Clone `b` has nothing yet."""
    shutil.rmtree(world.project("b").root)
    world.add_clone("b")


def follow(world: World, store: Store) -> object:
    """Clone `a` pulls, changes further what it got from `b`, and syncs that."""
    world.pull("a", store=store)
    if world.tree("a").get("d/b") == EDITS_B["d/b"]:
        world.edit("a", FOLLOWED)
        (world.folder / "followed").touch()
    return world.sync("a", store=store)


def followed(world: World) -> Edits:
    return FOLLOWED if (world.folder / "followed").exists() else {}


def two_snapshots(scenario: Scenario, world: World) -> None:
    head = read_head(world.store, DATASET)
    assert head is not None
    (world.folder / "snapshot").write_text(head.snapshot)
    behind(scenario, world)
    world.pull("b")


def restore(world: World, store: Store) -> object:
    done = world.pull("b", store=store, snapshot=(world.folder / "snapshot").read_text())
    (world.folder / "restored").touch()
    return done


def restored(world: World) -> Edits:
    """All of the older snapshot or nothing of it, and all of it where the restore had ended well. What `a` had synced
    before is undone with it; what it has synced since is not."""
    old = {path: BASE.get(path) for path in NEWER}
    is_restored = (world.folder / "restored").exists() or world.tree("b").get("e") == BASE["e"]
    if not is_restored:
        return {}
    is_undone = "new a" not in world.tree("b")
    return {**old, **({path: BASE.get(path) for path in LATE_A} if is_undone else {})}
