"""Which real commands are harmed, in which state, and what plain commands must find afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.simulator.real_place import BASE, BIG, DATASET, EDITED, Broken, Ended, Place
from tests.simulator.world import files_below
from tests.support.trees import Tree


def _succeeds(place: Place, name: str, *arguments: str) -> Ended:
    ended = place.run(name, *arguments)
    if ended.code != 0:
        raise Broken(f"{name}: amlctl {' '.join(arguments)} ends with {ended.code}: {ended.err.strip()[-400:]}")
    return ended


def _same(what: str, found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> None:
    found = {path: data for path, data in found.items() if ".amlctl-tmp-" not in path}
    if found != expected:
        wrong = sorted(path for path in {*found, *expected} if found.get(path) != expected.get(path))
        raise Broken(f"{what}: {', '.join(wrong)}")


def _stored(place: Place, expected: Tree) -> None:
    """What someone gets who has nothing, and that nothing is damaged."""
    _succeeds(place, "c", "store", "verify")
    _succeeds(place, "c", "sync", "--pull", DATASET)
    _same("what a new clone pulls differs", place.tree("c"), expected)


# --- the cases ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """`command` in project `clone` is harmed; then `check` runs plain commands. It is told whether the command has said
    that it succeeded, and a number that changes with each trial."""

    clone: str
    command: Sequence[str]
    prepare: Callable[[Place], None]
    check: Callable[[Place, bool, int], None]


def _nothing_yet(place: Place) -> None:
    place.make_tree("a", BASE)


def _synced(place: Place, *options: str) -> None:
    place.make_tree("a", BASE)
    _succeeds(place, "a", "sync", *options, DATASET)
    _succeeds(place, "b", "sync", "--pull", DATASET)


def _edited(place: Place) -> None:
    _synced(place)
    place.make_tree("a", EDITED)


def _edited_mirror(place: Place) -> None:
    _synced(place, "--layout", "mirror")
    place.make_tree("a", EDITED)


def _only_in_store(place: Place) -> None:
    place.make_tree("a", BASE)
    _succeeds(place, "a", "sync", DATASET)


_MINE = b"edited by b"


def _behind(place: Place) -> None:
    _edited(place)
    _succeeds(place, "a", "sync", DATASET)
    place.make_tree("b", {**BASE, "mine": _MINE})


def _older(place: Place) -> None:
    _synced(place)
    snapshot = json.loads(_succeeds(place, "a", "sync", DATASET, "--json").out)
    (place.root / "snapshot").write_text(json.dumps(snapshot))
    place.make_tree("a", EDITED)
    _succeeds(place, "a", "sync", DATASET)
    _succeeds(place, "b", "sync", "--pull", DATASET)


def _with_rubbish(place: Place) -> None:
    """Twelve snapshots, so that the first ones may go."""
    _synced(place)
    for number in range(12):
        place.make_tree("a", {**BASE, "gone": b"state %d" % number * 30, "big": BIG + b"%d" % number})
        _succeeds(place, "a", "sync", DATASET)
    place.age()


_LAST: Tree = {**BASE, "gone": b"state 11" * 30, "big": BIG + b"11"}


def _with_run(place: Place) -> None:
    done = _succeeds(place, "a", "submit", "a.py", "--env-from", "current", "--no-fetch", "--json")
    (place.root / "run").write_text(_run_of(done))


def _run_of(ended: Ended) -> str:
    return str(json.loads(ended.out)["run"])


def _checked_sync(expected: Tree) -> Callable[[Place, bool, int], None]:
    def check(place: Place, has_succeeded: bool, number: int) -> None:
        if has_succeeded:
            _stored(place, expected)
        _succeeds(place, "a", "sync", DATASET)
        _stored(place, expected)
        _same("what a has differs", place.tree("a"), expected)

    return check


def _checked_pull(expected: Tree, stored: Tree) -> Callable[[Place, bool, int], None]:
    """The next plain command is a sync every other time: what was broken off is not an edit."""

    def check(place: Place, has_succeeded: bool, number: int) -> None:
        if has_succeeded:
            _same("what b has after a pull that succeeded differs", place.tree("b"), expected)
        if number % 2 and (place.project("b") / DATASET).exists():
            _succeeds(place, "b", "sync", DATASET)
            if expected == stored:
                _stored(place, stored)
        _succeeds(place, "b", "sync", "--pull", DATASET)
        _same("what b has differs", place.tree("b"), expected)
        _succeeds(place, "b", "sync", DATASET)
        _stored(place, expected)

    return check


def _check_restored(place: Place, has_succeeded: bool, number: int) -> None:
    if has_succeeded:
        _same("what b has after a restore that succeeded differs", place.tree("b"), BASE)
    for options in ((), ("--pull",)) if number % 2 else (("--pull",), ()):
        _succeeds(place, "b", "sync", *options, DATASET)
    found = {path: data for path, data in place.tree("b").items() if ".amlctl-tmp-" not in path}
    if found not in (BASE, EDITED):
        raise Broken(f"b has neither snapshot: {sorted(found)}")
    _stored(place, found)


def _check_collected(place: Place, has_succeeded: bool, number: int) -> None:
    _stored(place, _LAST)
    place.make_tree("a", EDITED)
    _succeeds(place, "a", "sync", DATASET)
    _succeeds(place, "a", "store", "gc", "--yes")
    _stored(place, EDITED)


def _outputs(place: Place, run: str) -> None:
    folder = place.project("a") / "outputs" / run
    _same("the outputs differ", dict(files_below(folder)), {f"o{n}": str(n).encode() * 100 for n in range(4)})


def _check_submitted(place: Place, has_succeeded: bool, number: int) -> None:
    _succeeds(place, "a", "runs")
    done = _succeeds(place, "a", "submit", "a.py", "--env-from", "current", "--json")
    _outputs(place, _run_of(done))
    _succeeds(place, "a", "runs")


def _check_fetched(place: Place, has_succeeded: bool, number: int) -> None:
    run = (place.root / "run").read_text()
    if has_succeeded:
        _outputs(place, run)
    _succeeds(place, "a", "fetch", run)
    _outputs(place, run)


def _check_logs_fetched(place: Place, has_succeeded: bool, number: int) -> None:
    run = (place.root / "run").read_text()
    _succeeds(place, "a", "fetch", "--logs", run)
    shutil.rmtree(place.project("a") / "outputs" / run / "logs")
    _outputs(place, run)


def _check_made(place: Place, has_succeeded: bool, number: int) -> None:
    _succeeds(place, "a", "init", "../new")
    _succeeds(place, "a", "init", "../another")
    made, wanted = (dict(files_below(place.root / name)) for name in ("new", "another"))
    _same("the new project is not whole", made, wanted)


def _damaged(place: Place) -> None:
    _synced(place)
    for path in [*(place.store / "packs").rglob("*.zip")][:1]:
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-40])


def _check_repaired(place: Place, has_succeeded: bool, number: int) -> None:
    if has_succeeded:
        _stored(place, BASE)
    _succeeds(place, "a", "sync", "--repair", DATASET)
    _stored(place, BASE)


CASES: Mapping[str, Case] = {
    "sync-first": Case("a", ("sync", DATASET), _nothing_yet, _checked_sync(BASE)),
    "sync-edit": Case("a", ("sync", DATASET), _edited, _checked_sync(EDITED)),
    "sync-mirror": Case("a", ("sync", DATASET), _edited_mirror, _checked_sync(EDITED)),
    "repair": Case("a", ("sync", "--repair", DATASET), _damaged, _check_repaired),
    "pull-first": Case("b", ("sync", "--pull", DATASET), _only_in_store, _checked_pull(BASE, BASE)),
    "pull-update": Case("b", ("sync", "--pull", DATASET), _behind, _checked_pull({**EDITED, "mine": _MINE}, EDITED)),
    "restore": Case("b", ("sync", "--pull", "--snapshot", "SNAPSHOT", DATASET), _older, _check_restored),
    "gc": Case("a", ("store", "gc", "--yes"), _with_rubbish, _check_collected),
    "fetch": Case("a", ("fetch", "RUN"), _with_run, _check_fetched),
    "fetch-logs": Case("a", ("fetch", "--logs", "RUN"), _with_run, _check_logs_fetched),
    "init": Case("a", ("init", "../new"), lambda place: None, _check_made),
    "submit": Case(
        "a", ("submit", "a.py", "--env-from", "current", "--no-fetch"), lambda place: None, _check_submitted
    ),
}
