"""Runs and code in a store: records, lists of outputs and their bytes, what was published, code and its indexes. Each
value of a record is taken with its type: others may have written it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence

from amlctl.core.content_id import is_content_id
from amlctl.core.manifest import FileEntry, snapshot_id
from amlctl.core.message import Command, Message
from amlctl.core.pack import GZIP_HEAD
from amlctl.core.run_state import RunState, is_final
from amlctl.core.store_keys import (
    CODE,
    RUNS,
    code_index_key,
    code_of,
    code_prefix,
    is_code_index_key,
    outputs_index_key,
    outputs_prefix,
    outputs_tree,
    published_key,
    record_key,
)
from amlctl.errors import AmlctlError, NotFound
from amlctl.operations.store.damage import Damage, StoreListing, damaged_bytes, unreadable
from amlctl.runs.records import manifests_of_record, published_manifests, read_fields
from amlctl.runs.tree import TreeIndex, read_index, read_tree_index, stored_key
from amlctl.stores.contract import Store

_RANK = re.compile(r"outputs\.rank-([0-9]+)\.json")
_MOST_NODES = 100_000
_STATES = frozenset(RunState)

Check = Callable[[], Sequence[Damage]]


def run_checks(store: Store, listing: StoreListing) -> Iterator[Check]:
    for run, keys in _runs(listing).items():
        ranks = {int(found[1]) for key in keys if (found := _RANK.fullmatch(key.split("/", 2)[2]))}
        listing.mark(record_key(run), published_key(run))
        listing.mark(*(outputs_index_key(run, rank) for rank in {0, *ranks}))
        listing.mark(*(key for key in keys if key.startswith(outputs_prefix(run)[:-1])))
        yield functools.partial(_check_run, store, listing, run, ranks)


def code_checks(store: Store, listing: StoreListing) -> Iterator[Check]:
    for key in listing.below(CODE):
        listing.mark(key)
        if is_code_index_key(key):
            yield functools.partial(_check_code, store, listing, code_of(key))


def manifests_of_runs(store: Store, listing: StoreListing) -> set[str]:
    """Keys of manifests that runs have published, or brought from another store: they need no HEAD."""
    found: set[str] = set()
    for run in _runs(listing):
        try:
            found.update(published_manifests(store, run))
        except AmlctlError as error:
            unreadable(store, error)  # the run's own check reports it
        try:
            record = read_fields(store, run)
            if record.has_text("from_run"):
                found.update(manifests_of_record(record))
        except (NotFound, ValueError):
            continue
        except AmlctlError as error:
            unreadable(store, error)
    return found


def _runs(listing: StoreListing) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key in listing.below(RUNS):
        if key.count("/") >= 2:
            found.setdefault(key.split("/", 2)[1], []).append(key)
    return found


def _check_run(store: Store, listing: StoreListing, run: str, ranks: set[int]) -> list[Damage]:
    again = Command("submit", "--from", run)
    found: list[Damage] = []
    status, produces, nodes = "", False, range(1)
    key = record_key(run)
    try:
        record = read_fields(store, run)
        if record.text("run") != run:
            raise ValueError(f"it is the record of {record.text('run')}")
        status = record.text("status")
        if status not in _STATES:
            raise ValueError(f"{status!r} is not a state of runs")
        produces = bool(record.array("produces", ()))
        code = record.text("code", "")
        nodes = range(record.number("instances", least=1, most=_MOST_NODES) if "instances" in record else 1)
        if record.has_text("job_type"):
            nodes = range(0)  # a sweep or pipeline: its runs have outputs, it has none
        named = manifests_of_record(record)
    except NotFound:
        return [Damage(key, "is missing, although other files of the run are there", Command("runs", "show", run))]
    except (AmlctlError, ValueError) as error:
        why = unreadable(store, error) if isinstance(error, AmlctlError) else error
        show = Message(Command("runs", "show", run), ", where it was submitted")
        found.append(Damage(key, f"cannot be read: {why}", show))
    else:
        found += [Damage(one, f"is missing; run {run} needs it", again) for one in named if one not in listing.sizes]
        if code and code_index_key(code) not in listing.sizes and listing.below(code_prefix(code)):
            found.append(Damage(code_index_key(code), f"is missing; run {run} needs it", Command("submit", "SCRIPT")))
    found += _check_published(store, listing, run, is_needed=produces and status == RunState.COMPLETED)
    for rank in sorted({*ranks, *nodes}):
        found += _check_outputs(store, listing, run, rank, status)
    return found


def _check_published(store: Store, listing: StoreListing, run: str, *, is_needed: bool) -> list[Damage]:
    key, again = published_key(run), Command("submit", "--from", run)
    if key not in listing.sizes:
        return [Damage(key, "is missing, although the run has produced datasets", again)] if is_needed else []
    try:
        missing = [one for one in published_manifests(store, run) if one not in listing.sizes]
    except AmlctlError as error:
        return [Damage(key, unreadable(store, error), again)]
    return [Damage(one, f"is missing; run {run} has published it", again) for one in missing]


def _check_outputs(store: Store, listing: StoreListing, run: str, rank: int, status: str) -> list[Damage]:
    key, again = outputs_index_key(run, rank), Command("submit", "--from", run)
    try:
        index = read_tree_index(store, key)
    except AmlctlError as error:
        return [Damage(key, unreadable(store, error), again)]
    if index is None:
        there = list(listing.below(outputs_prefix(run, rank)))
        is_lost = status == RunState.COMPLETED or (there and (is_final(status) or not status))
        what = f"is missing: the list of what run {run} has put out"
        return [Damage(key, what, again)] if is_lost else []
    return _check_listed_outputs(store, index, run, rank, again)


def _check_listed_outputs(store: Store, index: TreeIndex, run: str, rank: int, again: str) -> list[Damage]:
    prefix = outputs_tree(run, rank).prefix_in(index.format)
    found: list[Damage] = []
    for file in index.files:
        if file.is_folder:
            continue
        key = stored_key(prefix, file)
        newer = {one.content_id for one in index.pending if stored_key(prefix, one) == key}
        missing, wrong = f"is missing; run {run} has put it out", "its bytes are not those of the run's list"
        found += damaged_bytes(store, key, {file.content_id, *newer}, missing=missing, wrong=wrong, repair=again)
    return found


def _check_code(store: Store, listing: StoreListing, code: str) -> list[Damage]:
    key, again = code_index_key(code), Message(Command("submit", "SCRIPT"), ", with the same code")
    try:
        files = read_index(store, key)
        start = store.get(key, length=len(GZIP_HEAD))
    except NotFound:
        return []
    except AmlctlError as error:
        return [Damage(key, unreadable(store, error), again)]
    if files is None:
        return []
    if start != GZIP_HEAD and not start.startswith(b"{"):
        return [Damage(key, "its first bytes are damaged", again)]
    if not is_content_id(code) or snapshot_id([FileEntry(*file[:4]) for file in files]) != code:
        return [Damage(key, "lists other files than those of its name", again)]
    found: list[Damage] = []
    for file in files:
        wanted, wrong = [file.content_id], "its bytes are not those of its index"
        name = code_prefix(code) + file.path
        found += damaged_bytes(store, name, wanted, missing="is missing", wrong=wrong, repair=again)
    return found
