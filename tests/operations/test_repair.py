"""`sync --repair` trusts nothing that the store has, and says "repaired" only of what it has read back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from amlctl.core.events import null_sink
from amlctl.core.store_keys import FORMAT_KEY, head_key
from amlctl.errors import IntegrityError
from amlctl.operations.store.verify import verify
from amlctl.snapshots.heads import fence, read_head
from amlctl.snapshots.store_format import find_store_id
from amlctl.stores.contract import Body, OnBytes, unobserved
from amlctl.stores.directory import DirectoryStore
from tests.support.clones import DATASET, Clone, Clones, random_tree


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path)


@pytest.fixture
def one(clones: Clones) -> Clone:
    clone = clones["one"]
    clone.make(random_tree(1, 30) | {"big": b"b" * 9000})
    clone.sync()
    return clone


@pytest.mark.parametrize("damage", [b'{"form', b"", b"[]", b'{"format": 2, "id": "x"}', b'{"format": true}', None])
def test_format_json_gets_the_id_back_that_heads_have(clones: Clones, one: Clone, damage: bytes | None) -> None:
    store_id = find_store_id(clones.store)
    if damage is None:
        clones.store.delete(FORMAT_KEY)
    else:
        clones.store.put(FORMAT_KEY, damage, replace=True)
    [found] = verify(clones.store, null_sink).damages
    assert found.key == FORMAT_KEY
    one.sync(repair=True)
    assert find_store_id(clones.store) == store_id
    assert verify(clones.store, null_sink).damaged == []
    one.make({"a": b"1"}, "raw/new")
    one.sync("raw/new")


def test_an_id_that_no_head_has_is_damage(clones: Clones, one: Clone) -> None:
    store_id = find_store_id(clones.store)
    clones.store.put(FORMAT_KEY, json.dumps({"format": 2, "id": "0" * 32}).encode(), replace=True)
    assert verify(clones.store, null_sink).damaged
    one.sync(repair=True)
    assert find_store_id(clones.store) == store_id


def _delete(clones: Clones) -> None:
    clones.store.delete(head_key(DATASET))


def _fence(clones: Clones) -> None:
    clones.store.delete(head_key(DATASET))
    fence(clones.store, DATASET, 1, "ab" * 16)


@pytest.mark.parametrize("lose", [_delete, _fence])
@pytest.mark.parametrize("who", ["one", "two", "stranger"])
def test_a_head_that_is_missing_is_made_again(
    clones: Clones, one: Clone, lose: Callable[[Clones], None], who: str
) -> None:
    two = clones["two"]
    two.pull()
    (two.root / "theirs").write_bytes(b"theirs")
    two.sync()
    tree = two.tree
    lose(clones)
    repairing = clones[who]
    if who == "stranger":
        repairing.make(tree)
    repairing.sync(repair=True)
    assert clones.stored() == tree
    head = read_head(clones.store, DATASET)
    assert head is not None
    assert verify(clones.store, null_sink).damaged == []


class _LyingStore(DirectoryStore):
    """A disk that loses what is written to packs and objects, without a word."""

    def put(self, key: str, body: Body, *, replace: bool = False, on_bytes: OnBytes = unobserved) -> bool:
        found = super().put(key, body, replace=replace, on_bytes=on_bytes)
        self._harm(key)
        return found

    def _harm(self, key: str) -> None:
        path = self.local_path(key)
        if path is not None and key.startswith(("packs/", "objects/")):
            data = path.read_bytes()
            path.chmod(0o644)
            path.write_bytes(data[:-200] + bytes(200))


@pytest.mark.parametrize("prefix", ["packs/", "objects/"])
def test_what_does_not_arrive_is_not_reported_as_repaired(clones: Clones, one: Clone, prefix: str) -> None:
    for entry in [*clones.store.list(prefix)]:
        path = clones.path(entry.key)
        path.chmod(0o644)
        path.write_bytes(bytes(entry.size_bytes))
    before = clones.store.get(head_key(DATASET))
    one.store = _LyingStore(Path(clones.store.url))
    with pytest.raises(IntegrityError, match="damaged or missing"):
        one.sync(repair=True)
    assert clones.store.get(head_key(DATASET)) == before
    one.store = clones.store
    one.sync(repair=True)
    assert clones.stored() == one.tree


def test_a_pack_that_is_damaged_around_its_members_is_replaced(clones: Clones, one: Clone) -> None:
    [key, *_] = sorted(clones.stored_keys("packs/"))
    path = clones.path(key)
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    assert verify(clones.store, null_sink).damaged
    one.sync(repair=True)
    assert verify(clones.store, null_sink).damaged == []


def test_what_this_machine_has_not_pulled_is_named_and_the_rest_repaired(clones: Clones, one: Clone) -> None:
    two = clones["two"]
    two.pull()
    one.make({**one.tree, "big": b"B" * 9000, "new": b"n" * 9000})
    one.sync()
    shared = next(key for key in clones.stored_keys("packs/"))
    for key in [*clones.stored_keys("objects/"), shared]:
        path = clones.path(key)
        path.chmod(0o644)
        path.write_bytes(b"")
    with pytest.raises(IntegrityError) as caught:
        two.sync(repair=True)
    assert sorted(caught.value.details) == ["big", "new"]
    assert "on a machine that has them" in str(caught.value.hint)
    assert {damage.key.partition("/")[0] for damage in verify(clones.store, null_sink).damages} == {"objects"}
    one.sync(repair=True)
    assert clones.stored() == one.tree
    two.pull()
    assert two.tree == one.tree


@pytest.mark.parametrize("kind", ["objects/", "packs/"])
def test_one_value_that_the_disk_does_not_give_hides_no_other(tmp_path: Path, kind: str) -> None:
    clones = Clones(tmp_path)
    one = clones["one"]
    one.make(random_tree(5, 40))
    one.sync()
    values = sorted(clones.store.list(kind), key=lambda entry: entry.key)
    assert len(values) > 1
    unreadable, emptied = (clones.path(entry.key) for entry in values[:2])
    unreadable.unlink()
    unreadable.symlink_to(unreadable.name)  # a loop: open fails with ELOOP
    emptied.chmod(0o644)
    emptied.write_bytes(b"")
    damaged = verify(clones.store, null_sink).damaged
    assert any(line.startswith(f"{values[0].key}: cannot be read") for line in damaged)
    assert any(line.startswith(values[1].key) for line in damaged)
    one.sync(repair=True)
    assert verify(clones.store, null_sink).damaged == []
