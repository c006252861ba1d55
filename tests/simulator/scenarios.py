"""All scenarios, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.simulator import dataset_states, run_states
from tests.simulator.scenario import (
    AHEAD_S,
    BIG,
    EDITS_A,
    EDITS_B,
    LATE_A,
    NEWER,
    NEWER_LIST,
    OLD_AGAIN,
    OTHER,
    SAME_A,
    Role,
    Scenario,
)
from tests.simulator.scheduler import JUMP_S


def _a(kind: str = "sync", **more: Any) -> Role:
    return Role("a", kind, "a", **more)


def _b(kind: str = "sync", **more: Any) -> Role:
    return Role("b", kind, "b", **more)


def _g(**more: Any) -> Role:
    return Role("g", "gc", **more)


_REMOVAL = {
    "remove": dataset_states.remove_dataset,
    "restore removed": dataset_states.restore_dataset,
    "gc at once": dataset_states.collect_at_once,
}

SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("sync+sync", (_a(), _b()), edits={"a": EDITS_A, "b": EDITS_B}),
        Scenario(
            "sync+sync-first", (_a(), _b()), base={}, edits={"a": {"a": b"1", "x": BIG}, "b": {"b": b"2", "y": BIG}}
        ),
        Scenario(
            "sync+sync-same-file",
            (_a(), _b()),
            edits={"a": {**EDITS_A, "e": b"four, by a"}, "b": {**EDITS_B, "e": b"four, by b"}},
            rivals=("e",),
        ),
        Scenario("sync+pull", (_a(), _b("pull")), edits={"a": EDITS_A}),
        Scenario("sync+pull-edited", (_a(), _b("pull")), edits={"a": EDITS_A, "b": EDITS_B}),
        Scenario(
            "pull-behind+sync", (_a(), _b("pull")), edits={"a": LATE_A}, extra=NEWER, prepare=dataset_states.behind
        ),
        Scenario(
            "pull-behind+sync-same-files",
            (_a(), _b("pull")),
            edits={"a": SAME_A},
            extra=NEWER,
            prepare=dataset_states.behind,
        ),
        Scenario(
            "pull-fresh+sync",
            (_a(), _b("pull")),
            edits={"a": {"e": b"four, newest", "d/c": BIG + b"newest", "gone": None}},
            prepare=dataset_states.fresh_clone,
        ),
        Scenario(
            "pull-gone+sync",
            (_a(), _b("pull")),
            edits={"a": LATE_A},
            extra=NEWER,
            prepare=dataset_states.folder_gone,
        ),
        Scenario(
            "sync+follow",
            (_b(), _a("follow")),
            edits={"b": EDITS_B},
            overlay=dataset_states.followed,
            commands={"follow": dataset_states.follow},
        ),
        Scenario(
            "restore",
            (_b("restore"),),
            extra=NEWER,
            prepare=dataset_states.two_snapshots,
            overlay=dataset_states.restored,
            commands={"restore": dataset_states.restore},
        ),
        Scenario(
            "restore+sync",
            (_a(), _b("restore")),
            edits={"a": LATE_A},
            extra=NEWER,
            prepare=dataset_states.two_snapshots,
            overlay=dataset_states.restored,
            commands={"restore": dataset_states.restore},
        ),
        Scenario(
            "sync+pull-one-machine",
            (_a(), Role("p", "pull", "a")),
            edits={"a": LATE_A},
            prepare=dataset_states.behind,
            extra=NEWER,
        ),
        Scenario("sync+gc", (_a(), _g(skew_s=AHEAD_S)), edits={"a": EDITS_A}, faults=("jump",)),
        Scenario(
            "sync-old-packs+gc",
            (_a(), _g()),
            edits={"a": OLD_AGAIN},
            prepare=dataset_states.old_packs,
            faults=("jump",),
        ),
        Scenario(
            "sync-cut-packs+gc",
            (_a(), _g()),
            edits={"a": OLD_AGAIN},
            prepare=dataset_states.cut_packs,
            faults=("jump",),
        ),
        Scenario(
            "sync-old-packs+gc-ahead",
            (_a(), _g(skew_s=AHEAD_S)),
            edits={"a": OLD_AGAIN},
            prepare=dataset_states.old_packs,
        ),
        Scenario(
            "sync-copied+gc",
            (_a(dataset=OTHER), _g()),
            prepare=dataset_states.copied_dataset,
            settle=dataset_states.other_is_whole,
            at_once=dataset_states.other_at_once,
        ),
        Scenario(
            "sync-new+gc-ahead",
            (_a(dataset=OTHER), _g(skew_s=AHEAD_S)),
            prepare=dataset_states.new_dataset,
            settle=dataset_states.other_is_whole,
            at_once=dataset_states.other_at_once,
            faults=("jump",),
        ),
        Scenario(
            "sync-renamed+gc-ahead",
            (_a(), _g(skew_s=AHEAD_S)),
            edits={"a": {"d/b": None, "d/c": None, "f/b": b"two", "f/c": BIG}},
        ),
        Scenario("pull-behind+gc-ahead", (_b("pull"), _g(skew_s=AHEAD_S)), prepare=dataset_states.behind, extra=NEWER),
        Scenario(
            "pull-stale+sync",
            (_a(), _b("pull")),
            edits={"a": LATE_A},
            prepare=dataset_states.stale_clone,
            extra=NEWER_LIST,
        ),
        Scenario(
            "sync-stale+sync",
            (_a(), _b()),
            edits={"a": LATE_A, "b": {"new b": b"by b"}},
            prepare=dataset_states.stale_clone,
            extra=NEWER_LIST,
        ),
        Scenario(
            "sync+sync+gc", (_a(), _b(), _g(skew_s=AHEAD_S)), edits={"a": EDITS_A, "b": EDITS_B}, faults=("jump",)
        ),
        Scenario(
            "sync+sync+gc-keep-one",
            (_a(), _b(), _g(skew_s=AHEAD_S)),
            edits={"a": EDITS_A, "b": EDITS_B},
            commands={"gc": dataset_states.collect_but_one},
        ),
        Scenario(
            "sync+pull+gc",
            (_a(), _b("pull"), _g(skew_s=AHEAD_S)),
            edits={"a": LATE_A},
            prepare=dataset_states.behind,
            extra=NEWER,
        ),
        Scenario(
            "gc+gc+sync",
            (_a(), _g(), Role("h", "gc", skew_s=AHEAD_S)),
            edits={"a": OLD_AGAIN},
            prepare=dataset_states.old_packs,
        ),
        Scenario(
            "remove+sync",
            (_a(), Role("r", "remove")),
            edits={"a": EDITS_A, "b": EDITS_B},
            first=dataset_states.restore_if_removed,
            commands=_REMOVAL,
        ),
        Scenario(
            "remove+pull+gc",
            (_b("pull"), Role("r", "remove"), _g(skew_s=AHEAD_S)),
            edits={"b": EDITS_B},
            first=dataset_states.restore_if_removed,
            at_once=dataset_states.can_be_restored,
            commands=_REMOVAL,
        ),
        Scenario(
            "remove+sync+gc-at-once",
            (_a(), Role("r", "remove"), Role("g", "gc at once")),
            edits={"a": {"new a": b"by a", "d/large a": BIG + b"by a"}},
            first=dataset_states.restore_if_removed,
            commands=_REMOVAL,
        ),
        Scenario(
            "restore-removed+gc-at-once",
            (Role("r", "restore removed"), Role("g", "gc at once")),
            prepare=dataset_states.removed,
            first=dataset_states.restore_if_removed,
            at_once=dataset_states.restored_is_whole,
            commands=_REMOVAL,
        ),
        Scenario(
            "restore-removed+sync-again",
            (_a(options={"force": True}), Role("r", "restore removed")),
            edits={"a": EDITS_A},
            prepare=dataset_states.removed,
            first=dataset_states.restore_if_removed,
            at_once=dataset_states.restored_is_whole,
            commands=_REMOVAL,
        ),
        Scenario(
            "sync-again-mirror+gc-at-once",
            (_a(options={"force": True}), Role("g", "gc at once")),
            layout="mirror",
            prepare=dataset_states.removed,
            first=dataset_states.sync_again_as_mirror,
            commands=_REMOVAL,
            faults=("jump",),
        ),
        Scenario("mirror+mirror", (_a(), _b()), layout="mirror", edits={"a": EDITS_A, "b": EDITS_B}, faults=("jump",)),
        Scenario(
            "mirror+mirror-same-file",
            (_a(), _b()),
            layout="mirror",
            edits={"a": {**EDITS_A, "e": b"four, by a"}, "b": {**EDITS_B, "e": b"four, by b"}},
            rivals=("e",),
            faults=("jump",),
        ),
        Scenario(
            "mirror-kinds+mirror",
            (_a(), _b()),
            layout="mirror",
            edits={
                "a": {"a": None, "a/x": b"in a folder", "d/b": None, "d/c": None, "d": b"a file"},
                "b": {"new b": b"by b"},
            },
        ),
        Scenario("mirror+pull", (_a(), _b("pull")), layout="mirror", edits={"a": EDITS_A}),
        Scenario(
            "repair+sync",
            (_a(options={"repair": True}), _b()),
            edits={"b": {"new b": b"by b"}},
            prepare=dataset_states.damaged_pack,
            is_damaged=True,
            first=dataset_states.repair,
        ),
        Scenario(
            "repair+gc",
            (_a(options={"repair": True}), _g(skew_s=AHEAD_S)),
            prepare=dataset_states.damaged_pack,
            is_damaged=True,
            faults=("cut",),
            first=dataset_states.repair,
        ),
        Scenario(
            "swapped-heads",
            (_a(), _b("pull")),
            edits={"a": EDITS_A},
            prepare=dataset_states.swapped_heads,
            is_damaged=True,
            first=dataset_states.repair,
            at_once=dataset_states.not_believed,
        ),
        Scenario(
            "repair",
            (_a(options={"repair": True}),),
            prepare=dataset_states.damaged_pack,
            is_damaged=True,
            faults=("cut",),
            first=dataset_states.repair,
        ),
        Scenario(
            "submit+gc",
            (_a("submit"), _g()),
            prepare=run_states.old_code,
            settle=run_states.submit_again,
            at_once=run_states.run_is_whole,
            commands={"submit": run_states.submit},
            faults=("jump",),
        ),
        Scenario(
            "submit+gc-ahead",
            (_a("submit"), _g(skew_s=AHEAD_S)),
            prepare=run_states.old_code,
            settle=run_states.submit_again,
            at_once=run_states.run_is_whole,
            commands={"submit": run_states.submit},
        ),
        Scenario(
            "submit+sync+gc-ahead",
            (_a("submit"), _b(), _g(skew_s=AHEAD_S)),
            edits={"b": EDITS_B},
            prepare=run_states.old_code,
            settle=run_states.submit_again,
            at_once=run_states.run_is_whole,
            commands={"submit": run_states.submit},
        ),
        Scenario(
            "outputs+gc-ahead",
            (_a("save"), _g(skew_s=AHEAD_S)),
            settle=run_states.save_again,
            commands={"save": run_states.save_outputs},
        ),
        Scenario(
            "outputs+fetch",
            (_a("save"), Role("f", "fetch", "b")),
            settle=run_states.save_again,
            at_once=run_states.outputs_are_of_the_run,
            commands={"save": run_states.save_outputs, "fetch": run_states.fetch_outputs},
        ),
        Scenario(
            "publish+sync",
            (_a("publish"), _b()),
            edits={"b": EDITS_B},
            prepare=run_states.submitted,
            extra={"made": b"by the run", "d/made": BIG + b"made"},
            settle=run_states.publish_again,
            commands={"publish": run_states.publish},
        ),
        Scenario(
            "publish+gc-ahead",
            (_a("publish"), _g(skew_s=AHEAD_S)),
            prepare=run_states.submitted,
            extra={"made": b"by the run", "d/made": BIG + b"made"},
            settle=run_states.publish_again,
            commands={"publish": run_states.publish},
        ),
    )
}
assert JUMP_S < AHEAD_S
