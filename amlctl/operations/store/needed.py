"""What a store still needs: HEADs, the newest snapshots of each dataset, existing runs, and all that those name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from amlctl.core.head import Head, commit_of
from amlctl.core.manifest import Kind, repair_command
from amlctl.core.message import Command, Message
from amlctl.core.store_keys import (
    area_of,
    code_index_key,
    code_of,
    code_prefix,
    dataset_of_key,
    folder_of,
    folders_of,
    head_key_in,
    is_code_index_key,
    is_manifest_key,
    mirror_key,
    published_key,
    record_key,
    shard_key,
    snapshot_of,
)
from amlctl.errors import IntegrityError, NotFound
from amlctl.parallel import in_parallel
from amlctl.runs.records import heads_of_record, manifests_of_record, published_manifests, read_fields
from amlctl.snapshots.contents import key_of
from amlctl.snapshots.heads import datasets_with_head, find_head
from amlctl.snapshots.manifests import read_with_header
from amlctl.stores.contract import Entry, Store

REMOVED_S = 30 * 24 * 3600
"""Seconds for which a dataset that was removed can be restored."""
_MANIFESTS = 4
"""Read at a time: each of a large dataset takes memory."""


@dataclass(frozen=True)
class KeepRules:
    """Kept are the `snapshots` newest ones of each dataset, HEAD included, what is younger than `young_s`, so that an
    upload that was cut off need not be sent again, and datasets that were removed less than `removed_s` ago."""

    now: datetime
    snapshots: int = 10
    young_s: float = 24 * 3600
    removed_s: float = REMOVED_S

    @property
    def young_after(self) -> float:
        """In seconds since 1970."""
        return self.now.timestamp() - self.young_s

    @property
    def removed_after(self) -> float:
        """In seconds since 1970."""
        return self.now.timestamp() - self.removed_s


@dataclass(frozen=True)
class Needed:
    """`keys` are needed; one of code stands for all below it. `forgotten`: datasets that were removed too long ago to
    be restored, with the keys of their plain files that nothing needs."""

    keys: set[str]
    forgotten: Mapping[str, Set[str]]


class _Found:
    """What the store lists."""

    def __init__(self, store: Store, entries: Sequence[Entry], rules: KeepRules) -> None:
        self.live: set[str] = set()
        self.heads: set[str] = set()
        self.kept: set[str] = set()
        """Keys of manifests."""
        self.removed: dict[str, Head] = {}
        self.present = {entry.key for entry in entries}
        manifests: dict[str, list[Entry]] = {}
        commits: dict[str, Sequence[str]] = {}
        records, published = [], []
        for entry in entries:
            folder, _, name = entry.key.rpartition("/")
            if is_code_index_key(entry.key) and entry.modified_at >= rules.young_after:
                self.live.add(code_prefix(code_of(entry.key)))  # sent again not long ago: what it names is older
            elif is_manifest_key(entry.key):
                manifests.setdefault(dataset_of_key(entry.key), []).append(entry)
            elif entry.key.startswith("runs/") and name == "record.json":
                records.append(folder.removeprefix("runs/"))
            elif entry.key.startswith("runs/") and name == "published.json":
                published.append(folder.removeprefix("runs/"))
        for run_manifests, code in in_parallel(partial(named_by_run, store), records, store.concurrency):
            self.kept.update(run_manifests)
            self.live.update((code_prefix(code), code_index_key(code)) if code else ())
        for run_manifests in in_parallel(partial(_published, store), published, store.concurrency):
            self.kept.update(run_manifests)
        datasets = datasets_with_head(self.present)
        heads = in_parallel(partial(find_head, store), datasets, store.concurrency)
        for dataset, head in zip(datasets, heads, strict=True):
            self.live.add(next(key for key in map(head_key_in, folders_of(dataset)) if key in self.present))
            if head is None:
                continue  # deleted in the meantime
            if head.removed_at:
                self.removed[dataset] = head
            elif not head.is_fence:
                self.heads.add(head.manifest_key)
            commits[dataset] = head.before if head.is_fence else (head.commit, *head.before)
        for dataset, found in manifests.items():
            self._keep_newest(found, commits.get(dataset, ()), rules, is_forgotten=self.is_forgotten(dataset, rules))

    def is_forgotten(self, dataset: str, rules: KeepRules) -> bool:
        head = self.removed.get(dataset)
        return head is not None and datetime.fromisoformat(head.removed_at).timestamp() < rules.removed_after

    def _keep_newest(
        self, manifests: Sequence[Entry], commits: Sequence[str], rules: KeepRules, *, is_forgotten: bool
    ) -> None:
        number = 0 if is_forgotten else rules.snapshots
        newest: list[str] = []
        for entry in _newest_first(manifests, commits):
            snapshot = snapshot_of(entry.key)
            if snapshot not in newest:
                newest.append(snapshot)
            if snapshot in newest[:number] or entry.modified_at >= rules.young_after:
                self.kept.add(entry.key)


def needed(store: Store, entries: Sequence[Entry], rules: KeepRules) -> Needed:
    """`entries` are all that the store lists. Raises IntegrityError: what must be kept cannot be read."""
    found = _Found(store, entries, rules)
    live = found.live | found.heads | found.kept

    def named(key: str) -> set[str]:
        try:
            return _named_by_manifest(store, key, has_plain_files=dataset_of_key(key) in found.removed)
        except (NotFound, IntegrityError) as error:
            what = f"a part of {key} is missing: {error.message}" if isinstance(error, NotFound) else error.message
            repair = repair_command(dataset_of_key(key))
            hint = repair if key in found.heads else f"that older snapshot is lost: delete {key} in {store.url}"
            raise IntegrityError(what, hint=Message(hint, ", then gc again")) from error

    # A run may name a snapshot that was lost before; nothing of it is left to keep.
    for keys in in_parallel(named, sorted(found.heads | found.kept & found.present), _MANIFESTS):
        live.update(keys)
    names = datasets_with_head(found.present)
    return Needed(
        live,
        {
            dataset: _plain_files(dataset, found.present - live, names)
            for dataset in found.removed
            if found.is_forgotten(dataset, rules)
        },
    )


def _plain_files(dataset: str, keys: set[str], datasets: Sequence[str]) -> Set[str]:
    """Keys of plain files that are not those of a dataset inside this one."""
    prefix = mirror_key(dataset, "")
    inside = tuple(mirror_key(other, "") for other in datasets if other.startswith(f"{dataset}/")) or ("\0",)
    return {
        key
        for key in keys
        if area_of(key).is_plain and f"{key}/".startswith(prefix) and not f"{key}/".startswith(inside)
    }


def _newest_first(manifests: Sequence[Entry], commits: Sequence[str]) -> list[Entry]:
    """In the order of HEAD's list; those before it by their times, which may be equal in a copied store."""
    order = {commit: number for number, commit in enumerate(commits)}

    def place(entry: Entry) -> tuple[int, float]:
        return order.get(commit_of(entry.key), len(order)), -entry.modified_at

    return sorted(manifests, key=place)


def named_by_run(store: Store, run: str) -> tuple[list[str], str]:
    """Keys of manifests, and the code. Raises IntegrityError."""
    try:
        record = read_fields(store, run)
        return [*manifests_of_record(record), *heads_of_record(record)], record.text("code")
    except NotFound:
        return [], ""  # deleted in the meantime
    except ValueError as error:
        raise _unreadable(record_key(run), error, run) from error


def _published(store: Store, run: str) -> list[str]:
    try:
        return published_manifests(store, run)
    except IntegrityError as error:
        raise _unreadable(published_key(run), error.message, run) from error


def _unreadable(key: str, why: object, run: str) -> IntegrityError:
    """What it keeps is not known, so nothing may be deleted."""
    return IntegrityError(
        f"{key} cannot be read: {why}", hint=Message(Command("runs", "delete", run), ", then gc again")
    )


def _named_by_manifest(store: Store, key: str, *, has_plain_files: bool) -> set[str]:
    """`has_plain_files`: those of a mirror count too, since they may be deleted."""
    header, manifest = read_with_header(store, key)
    named = {shard_key(folder_of(key), name) for name in header.shards}
    named.update(key_of(content, place) for content, place in manifest.places.items() if place.kind is not Kind.MIRROR)
    if has_plain_files and manifest.layout == "mirror":
        named.update(mirror_key(manifest.dataset, entry.path) for entry in manifest.entries)
    return named
