"""Bring contents into a store: packs as they fill up, and large files in parallel."""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import Callable, NamedTuple

from amlctl.core.content_id import content_id
from amlctl.core.manifest import OBJECT, ONE_FILE, FileEntry, Manifest, StoredAt
from amlctl.core.store_keys import object_key
from amlctl.core.sync_plan import SyncPlan
from amlctl.errors import Conflict
from amlctl.localfs.disk_errors import failing_disk
from amlctl.localfs.read_file import read_small
from amlctl.parallel import Stop, alongside, in_parallel
from amlctl.snapshots.contents import read_content
from amlctl.snapshots.pack_sender import PackSender
from amlctl.snapshots.transfers import taking_turns
from amlctl.stores.contract import FileBody, Store, always


class Destination(NamedTuple):
    """Where files that are sent alone get to. `replaces` what the store has there; `check` is asked before each file
    and while it travels: what it raises ends the file."""

    key: Callable[[FileEntry], str]
    replaces: bool = False
    check: Callable[[], None] = always


OBJECTS = Destination(lambda entry: object_key(entry.content_id))


def send_plan(
    plan: SyncPlan,
    root: Path,
    head: Manifest,
    sender: PackSender,
    *,
    max_workers: int,
    destination: Destination = OBJECTS,
) -> tuple[Mapping[str, StoredAt], Mapping[str, int], Set[str]]:
    """Send what the plan names to the store of the sender; the places of all its entries, the sizes of all packs, and
    the contents that the store had although that was not known (a gc may be about to take them). `destination`: of
    files that are sent alone. Progress goes to `sender.transfers`.

    Raises Conflict where a file is not any more what it was when it was identified.
    """
    store, transfers, replace = sender.store, sender.transfers, sender.replace
    stop = Stop()
    # Packs may have been sent before there was a plan.
    values = len(plan.packs) + len(plan.files)
    transfers.expect(sender.content_files + plan.send_files, sender.content_bytes + plan.send_bytes, values)
    if plan.send_files:
        transfers.begin()
    predecessors = {} if destination.replaces else _predecessors(plan, head)

    def send_file(entry: FileEntry) -> bool:
        stop.check()
        destination.check()
        transfer = transfers.transfer(1, entry.size_bytes, entry.size_bytes)
        body = FileBody(
            _local(root, entry),
            entry.size_bytes,
            entry.content_id,
            None if replace else predecessors.get(entry.path),
            is_sent_whole=replace,
            may_go_on=destination.check,
        )

        def moved(size_bytes: int) -> None:
            stop.check()
            transfer.moved(size_bytes)

        was_new = store.put(destination.key(entry), body, replace=replace or destination.replaces, on_bytes=moved)
        transfer.done()
        return was_new

    files = taking_turns(plan.files, lambda entry: entry.size_bytes)
    with alongside(lambda: list(in_parallel(send_file, files, max_workers, stop=stop)), stop) as were_new:
        for pack in plan.packs:
            if pack[0].content_id in plan.repacked:
                sender.flush()
            for entry in pack:
                stop.check()
                sender.add(entry, _content(store, root, head, entry, plan))
        sender.finish()
    was_there = {entry.content_id for entry, was_new in zip(files, were_new.result()) if not was_new}
    transfers.finish()
    places = {**dict.fromkeys((entry.content_id for entry in plan.files), OBJECT), **plan.places, **sender.places}
    live = {entry.content_id for entry in plan.entries}
    places = {content: place for content, place in places.items() if content in live}
    return places, {**head.pack_sizes, **sender.pack_sizes}, was_there | sender.was_there


def _content(store: Store, root: Path, head: Manifest, entry: FileEntry, plan: SyncPlan) -> bytes:
    """The bytes to pack: from this disk, or from the store where another machine has put them."""
    path = _local(root, entry)
    try:
        data = read_small(path)
    except OSError as error:
        if (failure := failing_disk(error, str(path))) is not None:
            raise failure from error
        data = b""
    if content_id(data) == entry.content_id:
        return data
    if entry.content_id in plan.repacked:
        return read_content(store, head, entry)
    raise changed(entry.path)


def _predecessors(plan: SyncPlan, head: Manifest) -> Mapping[str, str]:
    """For the path of each large file to send: the key of the object that it was before."""
    paths = {entry.path for entry in plan.files}
    return {
        entry.path: object_key(entry.content_id)
        for entry in head.entries
        if entry.path in paths and head.places.get(entry.content_id) == OBJECT
    }


def changed(path: str) -> Conflict:
    return Conflict(f"{path} changed during the sync", hint="run the same command again: what arrived is kept")


def _local(root: Path, entry: FileEntry) -> Path:
    return root if entry.path == ONE_FILE else root / entry.path
