"""What a sync remembers, finds again, or does without."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path

import pytest

from amlctl.core.content_id import is_content_id
from amlctl.core.store_keys import head_key
from amlctl.errors import NotFound, SettingsError
from tests.support.clones import DATASET, Clone, Clones, random_tree


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path)


@pytest.fixture
def one(clones: Clones) -> Clone:
    return clones["one"]


def test_losing_the_local_state_costs_no_data_and_no_blob(clones: Clones, one: Clone) -> None:
    tree = random_tree(1)
    one.make(tree)
    first = one.sync()
    shutil.rmtree(one.project.state_dir)
    (one.root / "new").write_bytes(b"new")
    result = one.sync()
    assert (result.uploaded_blobs, result.previous) == (1, first.snapshot)
    assert clones.stored() == tree | {"new": b"new"}


def test_a_damaged_local_state_is_recreated(clones: Clones, one: Clone) -> None:
    one.make(random_tree(1))
    one.sync()
    for name in ("stat_cache.sqlite", "sync_state.sqlite"):
        (one.project.state_dir / name).write_bytes(b"no database" * 500)
    (one.root / "new").write_bytes(b"new")
    assert one.sync().uploaded_blobs == 1
    assert clones.stored() == one.tree


def test_checksum_trusts_no_times(clones: Clones, one: Clone) -> None:
    tree = random_tree(1)
    one.make(tree)
    one.sync_until_settled()
    result = one.sync(checksum=True)
    assert (result.hashed_bytes, result.uploaded_blobs) == (sum(map(len, tree.values())), 0)


def _newer(clones: Clones, key: str) -> None:
    clones.store.put(key, b'{"format": 3, "snapshot": "?", "manifest": "?", "layout": "?"}\n', replace=True)


def test_a_new_store_is_marked_with_its_format(clones: Clones, one: Clone) -> None:
    one.make({"f": b"1"})
    one.sync()
    found = json.loads(clones.store.get("format.json"))
    assert found["format"] == 2
    assert is_content_id(found["id"])


@pytest.mark.parametrize("where", ["format.json", "HEAD"])
def test_a_store_of_a_newer_format_is_left_alone(clones: Clones, one: Clone, where: str) -> None:
    one.make({"f": b"1"})
    _newer(clones, head_key(DATASET) if where == "HEAD" else where)
    before = clones.sizes()
    with pytest.raises(SettingsError, match="format 3") as caught:
        one.sync()
    assert "upgrade" in caught.value.hint
    assert clones.sizes() == before
    if where == "HEAD":
        for operation in (one.pull, one.status, one.foresee):
            with pytest.raises(SettingsError, match="format 3"):
                operation()


def test_a_manifest_of_a_newer_format_is_not_read(clones: Clones, one: Clone) -> None:
    one.make({"f": b"1"})
    result = one.sync()
    header = gzip.decompress(clones.store.get(result.manifest_key)).replace(b'"format": 1', b'"format": 2')
    clones.store.put(result.manifest_key, gzip.compress(header), replace=True)
    (one.root / "f").write_bytes(b"2")
    with pytest.raises(SettingsError, match="format 2") as caught:
        one.sync()
    assert "upgrade" in caught.value.hint
    with pytest.raises(SettingsError, match="format 2"):
        clones["two"].pull()


def test_what_a_pull_has_not_downloaded_yet_is_not_called_deleted(clones: Clones) -> None:
    one, two = clones["one"], clones["two"]
    one.make({"a": b"1", "b": b"2", "c": b"3"})
    one.sync()
    two.make({"a": b"1", "b": b"other", "d": b"4"})  # as after a first pull that was interrupted, and some work
    status = two.status()
    assert (status.new, status.modified, status.deleted) == (["d"], ["b"], ())
    assert status.remote_moved


def test_a_folder_that_is_gone_comes_back_with_a_pull(clones: Clones) -> None:
    """Its absence is not taken for the deletion of its files: a sync reports it and names the pull."""
    one = clones["one"]
    tree = random_tree(1)
    one.make(tree)
    one.sync()
    shutil.rmtree(one.root)
    with pytest.raises(NotFound) as caught:
        one.sync()
    assert "sync --pull" in caught.value.hint
    status = one.status()
    assert (status.here, status.deleted) == (False, ())
    one.pull()
    assert one.tree == tree


def test_a_pull_that_keeps_local_changes_says_how_to_drop_them(clones: Clones) -> None:
    one = clones["one"]
    tree = random_tree(1)
    one.make(tree)
    snapshot = one.sync().snapshot
    (one.root / "d1/f1").unlink()
    (one.root / "d2/f2").write_bytes(b"changed here")
    one.events.clear()
    one.pull()
    assert not (one.root / "d1/f1").exists()
    [reported] = [message for message in one.messages if "local change" in message]
    assert reported.startswith(f"{DATASET}: kept 2 local changes")
    assert f"--theirs --snapshot {snapshot[:12]}" in reported
    one.pull(theirs=True, snapshot=snapshot[:12])
    assert one.tree == tree


def test_a_file_that_only_status_has_seen_is_sent_after_it_was_touched(clones: Clones) -> None:
    """Its bytes are known here, but the store does not have them."""
    one = clones["one"]
    one.make(random_tree(1))
    one.sync()
    (one.root / "d1/new").write_bytes(b"never sent before")
    one.status()
    os.utime(one.root / "d1/new", (2**30, 2**30))
    assert one.sync().added == 1
    assert clones.stored() == one.tree


def test_touched_files_cost_their_reading_and_one_request(clones: Clones) -> None:
    one = clones["one"]
    one.make(random_tree(1))
    one.sync_until_settled()
    for path in one.root.rglob("*"):
        os.utime(path, (2**30, 2**30))
    done = one.sync()
    assert done.hashed_bytes == done.bytes == done.reused_bytes > 0
    assert (done.unchanged, done.requests, done.uploaded_bytes) == (done.files, 1, 0)


def test_what_the_store_has_otherwise_is_counted(clones: Clones) -> None:
    one, two = clones["one"], clones["two"]
    one.make(random_tree(1))
    one.sync()
    two.pull()
    (one.root / "d1/f1").write_bytes(b"one")
    one.sync()
    (two.root / "d1/f1").write_bytes(b"two")
    done = two.sync(theirs=True)
    assert (done.added, done.modified, done.not_here) == (0, 0, 1)
    assert (two.root / "d1/f1").read_bytes() == b"two"
    two.pull(theirs=True)
    assert two.tree == one.tree
