"""Faults planted into the product, each of which the simulator must find: what shows that it would find them.

A mutant replaces functions of the product in this process, within `virtual.simulated`. `where` names the scenarios that
are to catch it, by any of their orders.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from amlctl.core import head as core_head
from amlctl.core.diff import Side, merge
from amlctl.core.document import Fields
from amlctl.core.head import Head, encode_head
from amlctl.core.manifest import FileEntry
from amlctl.core.store_keys import code_index_key, dataset_of_folder, head_key, pack_key
from amlctl.localfs.sync_state import Step
from amlctl.mirror import plain_files
from amlctl.operations.dataset import removal
from amlctl.operations.store import gc as store_gc
from amlctl.operations.store import needed
from amlctl.operations.submit import start
from amlctl.operations.sync import attempt as sync_attempt
from amlctl.operations.sync import merge as sync_merge
from amlctl.operations.sync import pull, repair
from amlctl.operations.sync.dataset_state import DatasetState
from amlctl.operations.sync.pull_target import PullTarget
from amlctl.runs import code, tree_saver
from amlctl.snapshots import gc_mark, heads, known, lease, manifests
from amlctl.snapshots.known import ANY_SIZE, KnownContents
from amlctl.snapshots.manifests import Written
from amlctl.stores.contract import Store

Replaced = Sequence[tuple[Any, str, Any]]
"""Object, name of its attribute, what it has instead."""


@dataclass(frozen=True)
class Mutant:
    name: str
    where: Sequence[str]
    plant: Callable[[], Replaced]
    schedules: Sequence[str] = ()
    """Tried first, where it takes several preemptions at certain calls."""


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    found = mutant.plant()
    before = [(holder, name, vars(holder).get(name, _INHERITED)) for holder, name, _ in found]
    for holder, name, value in found:
        setattr(holder, name, value)
    try:
        yield
    finally:
        for holder, name, was in reversed(before):
            if was is _INHERITED:
                delattr(holder, name)
            else:
                setattr(holder, name, was)


_INHERITED = object()


def _everywhere(real: Any, value: Any) -> Replaced:
    """In every module that has imported it."""
    return [
        (module, name, value)
        for title, module in list(sys.modules.items())
        if title.startswith(("amlctl.", "tests.simulator."))
        for name, found in list(vars(module).items())
        if found is real
    ]


def _unguarded(store: Store, keys: Collection[str], *, guard: object = None) -> None:
    for key in keys:
        store.delete(key)


def _nothing(*_: Any, **__: Any) -> None:
    """What should have been done is not."""


def _swap_without_compare() -> Replaced:
    def swap_head(store: Store, dataset: str, value: Head, expected: Head | None, *, generation: int = 0) -> Head:
        value = heads.next_head(store, value, expected)
        found = store.get_versioned(head_key(dataset))
        data = encode_head(value._replace(gc=max(value.gc, generation)), dataset)
        return value._replace(version=store.swap(head_key(dataset), data, expected=found and found.version))

    return _everywhere(heads.swap_head, swap_head)


def _base_before_head() -> Replaced:
    def begin(self: Any, step: Step, base: Any) -> None:
        if base.manifest_key:
            self.kept.keep(self.store, base.manifest_key)
        self.state.sync.set_base(self.store_key, self.dataset, base)

    return [(DatasetState, "begin", begin)]


def _sizes_not_checked() -> Replaced:
    real = known.missing_values

    def missing_values(store: Store, wanted: Mapping[str, int]) -> set[str]:
        return real(store, dict.fromkeys(wanted, ANY_SIZE))

    def look_for(self: Any, packs: Sequence[str]) -> None:
        self._is_there.update((pack, self._store.info(pack_key(pack)) is not None) for pack in packs)

    return [*_everywhere(real, missing_values), (KnownContents, "_look_for", look_for)]


def _manifest_after_head() -> Replaced:
    waiting: list[Callable[[], object]] = []
    real_write, real_swap = manifests.write_manifest, heads.swap_head

    class Later:
        """Takes what is put, and puts it when HEAD has moved."""

        def __init__(self, store: Store) -> None:
            self._store = store

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        def put(self, key: str, body: Any, *, replace: bool = False) -> bool:
            waiting.append(lambda: self._store.put(key, body, replace=replace))
            return True

    def write_manifest(store: Any, *arguments: Any, **named: Any) -> Written:
        waiting.clear()
        return real_write(Later(store), *arguments, **named)  # type: ignore[arg-type]

    def swap_head(*arguments: Any, **named: Any) -> Head:
        result = real_swap(*arguments, **named)
        for put in waiting:
            put()
        return result

    return [
        (sync_attempt, "write_manifest", write_manifest),
        (sync_attempt, "swap_head", swap_head),
        *_not_noted(Step.COMMIT),
    ]


def _head_without_check() -> Replaced:
    def checked_value(fields: Fields, dataset: str) -> Any:
        more: dict[str, Any] = {"store_id": fields.text("store")}
        more |= {name: fields.number(name) for name in ("sequence", "gc")}
        return core_head._value(fields)._replace(**more, before=tuple(fields.array("before")))

    real = core_head.parse_head

    def parse_head(data: bytes, dataset: str) -> Any:
        folder = json.loads(data).get("manifest", "").rpartition("/")[0]
        return real(data, dataset_of_folder(folder) if folder else dataset)

    return [(core_head, "_checked_value", checked_value), *_everywhere(real, parse_head)]


def _delete_first() -> Replaced:
    real = PullTarget.make_room

    def make_room(self: Any, deleted: Sequence[str], to_write: Sequence[FileEntry]) -> Sequence[FileEntry]:
        self.delete(deleted)
        return real(self, deleted, to_write)

    return [(PullTarget, "make_room", make_room)]


def _not_noted(*steps: Step) -> Replaced:
    real = DatasetState.begin

    def begin(self: Any, step: Step, base: Any) -> None:
        if step not in steps:
            real(self, step, base)

    return [(DatasetState, "begin", begin)]


def _base_only_in_store() -> Replaced:
    real = DatasetState.entries_of

    def entries(looked: Any, base: Any) -> Sequence[FileEntry]:
        return real(replace(looked, kept=looked.store), base._replace(section=b""))

    return [(DatasetState, "entries_of", entries)]


def _gone_is_deleted() -> Replaced:
    class OnlyPull:
        PULL = Step.PULL
        PULL_ALL = Step.PULL
        COMMIT = Step.COMMIT

    return [(pull, "Step", OnlyPull)]


def _index_trusted() -> Replaced:
    real = code.send_code

    def send_code(store: Store, files: Any, **named: Any) -> Any:
        if store.info(code_index_key(files.id)) is not None:
            return 0
        return real(store, files, **named)

    return _everywhere(real, send_code)


def _ours_wins_silently() -> Replaced:
    def always_ours(base: Any, ours: Any, theirs: Any, *, prefer: Any = None) -> Any:
        return merge(base, ours, theirs, prefer=prefer or Side.OURS)

    return [(sync_merge, "merge", always_ours)]


def _no_merge() -> Replaced:
    def ours_alone(base: Any, ours: Any, theirs: Any, *, prefer: Any = None) -> Any:
        return merge(ours, ours, ours)

    return [(sync_merge, "merge", ours_alone)]


def _by_age_only() -> Replaced:
    return [(store_gc, "_fence", _nothing), *_everywhere(known.ensure_kept, _nothing)]


def _runs_not_kept() -> Replaced:
    return [(needed, "named_by_run", lambda store, key: ([], ""))]


def _unreplaced(real: Any) -> Any:
    def call(*arguments: Any, **named: Any) -> Any:
        return real(*arguments, **{**named, "replace": False})

    return call


_BEFORE_SWAPS = [f"a{a}b{b}g{g}abg" for a in (8, 9, 10, 11) for b in (8, 9, 10) for g in (4, 5, 6)]
"""Both syncs stop right before HEAD moves, gc before it deletes."""


def _forget_without_lease() -> Replaced:
    """By the plan of the gc alone."""

    def forget_all(store: Store, dataset: str, plain_files: Sequence[str], *_: Any, **__: Any) -> bool:
        _unguarded(store, plain_files)
        return True

    return _everywhere(store_gc.forget, forget_all)


def _remove_without_compare() -> Replaced:
    def swap_head(store: Store, dataset: str, value: Head, expected: Head, **_: Any) -> Head:
        value = heads.next_head(store, value, expected)
        found = store.get_versioned(head_key(dataset))
        data = encode_head(value, dataset)
        return value._replace(version=store.swap(head_key(dataset), data, expected=found and found.version))

    return [(removal, "swap_head", swap_head)]


def _nothing_replaced() -> Replaced:
    writers = ("write_manifest", "PackSender")
    unreplaced = [(sync_attempt, name, _unreplaced(getattr(sync_attempt, name))) for name in writers]
    return [*unreplaced, *_everywhere(repair.read_back, _nothing), *_everywhere(known.ensure_kept, _nothing)]


MUTANTS: Sequence[Mutant] = (
    Mutant("HEAD is swapped without comparing", ["sync+sync", "sync+sync-same-file"], _swap_without_compare),
    Mutant("a sync does not make sure that what it reuses is kept", ["sync-old-packs+gc"],
           lambda: _everywhere(known.ensure_kept, _nothing)),
    Mutant("the base is recorded before HEAD moves", ["sync+sync"], _base_before_head),
    Mutant("a pull does not write down what it is about to do", ["pull-behind+sync-same-files", "pull-fresh+sync"],
           lambda: _not_noted(Step.PULL, Step.PULL_ALL)),
    Mutant("a restore does not write down what it is about to do", ["restore"],
           lambda: _not_noted(Step.PULL, Step.PULL_ALL)),
    Mutant("a sync does not write down that it moves HEAD", ["sync+follow"],
           lambda: _not_noted(Step.COMMIT)),
    Mutant("sizes are not checked", ["sync-cut-packs+gc"], _sizes_not_checked),
    Mutant("gc goes by age only", ["sync-new+gc-ahead"], _by_age_only),
    Mutant("gc does not fence", ["sync+sync+gc-keep-one"],
           lambda: [(store_gc, "_fence", _nothing)], _BEFORE_SWAPS),
    Mutant("the generation of gc is not read again", ["sync-new+gc-ahead"],
           lambda: [(gc_mark.GcWatch, "was_quiet", lambda self: True)]),
    Mutant("a sync does not wait until a gc has ended", ["sync-old-packs+gc-ahead", "submit+gc"],
           lambda: [(gc_mark.GcWatch, "wait", _nothing)]),
    Mutant("gc does not make sure that it holds its lease", ["gc+gc+sync", "sync-old-packs+gc"],
           lambda: _everywhere(lease.delete_all, _unguarded)),
    Mutant("the manifest is written after HEAD", ["sync+sync"], _manifest_after_head),
    Mutant("HEAD is read without its check", ["swapped-heads"], _head_without_check),
    Mutant("the lease of a mirror is not checked", ["mirror+mirror-same-file"],
           lambda: [(plain_files.MirrorLease, "check", _nothing), (plain_files.MirrorLease, "confirm", _nothing)]),
    Mutant("a repair does not read back", ["repair"], lambda: _everywhere(repair.read_back, _nothing)),
    Mutant("a repair does not replace what is there", ["repair"], _nothing_replaced),
    Mutant("a pull deletes before everything has arrived", ["pull-behind+sync"], _delete_first),
    Mutant("the base is lost with gc", ["pull-stale+sync", "sync-stale+sync"], _base_only_in_store),
    Mutant("a folder that was gone counts as deleted files", ["pull-gone+sync"], _gone_is_deleted),
    Mutant("files of code are not looked for beside their index", ["submit+gc", "submit+gc-ahead"], _index_trusted),
    Mutant("a sync decides a conflict silently", ["sync+sync-same-file"], _ours_wins_silently),
    Mutant("a sync does not merge", ["sync+sync"], _no_merge),
    Mutant("gc does not keep what runs name", ["submit+gc"], _runs_not_kept),
    Mutant("a removal does not compare HEAD", ["remove+sync"], _remove_without_compare),
    Mutant("a removed dataset is restored without a look", ["restore-removed+gc-at-once"],
           lambda: [(removal, "_ensure_whole", _nothing)]),
    Mutant("gc does not keep what was removed", ["remove+pull+gc"],
           lambda: [(needed._Found, "is_forgotten", lambda self, dataset, rules: dataset in self.removed)]),
    Mutant("gc deletes plain files without their lease", ["sync-again-mirror+gc-at-once"], _forget_without_lease),
    Mutant("outputs are replaced without a word", ["outputs+fetch"],
           lambda: [(tree_saver.TreeSaver, "_announce", lambda self, changed: set())]),
    Mutant("a run starts without making sure of its code", ["submit+gc", "submit+gc-ahead"],
           lambda: _everywhere(start.ensure_run_kept, _nothing)),
)  # fmt: skip
