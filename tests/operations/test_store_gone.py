"""A store that was there and is not there now: nothing takes its place unasked."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from amlctl.errors import NeedsConfirmation
from tests.support.clones import Clone, Clones
from tests.support.trees import Tree

BEFORE: Tree = {"a": b"1", "d/b": b"2", "large": b"6" * 5_000}


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path)


def _forget_places(clone: Clone) -> None:
    """The databases as version 5 had them."""
    with sqlite3.connect(clone.project.state_dir / "sync_state.sqlite") as database:
        database.executescript("DROP TABLE place; PRAGMA user_version = 5;")


def test_bases_and_packs_of_version_5_are_kept(clones: Clones) -> None:
    one, two = clones["one"], clones["two"]
    one.make(BEFORE)
    one.sync()
    two.pull()
    _forget_places(one)
    (one.root / "a").unlink()
    result = one.sync()
    assert result.uploaded_blobs == 0
    assert clones.stored() == {path: data for path, data in BEFORE.items() if path != "a"}


@pytest.mark.parametrize("leave", [shutil.rmtree, lambda store: store.rename(store.with_name("elsewhere"))])
def test_a_store_that_is_gone_is_not_begun_again_unasked(clones: Clones, leave: Callable[[Path], object]) -> None:
    """A share that is not mounted looks like an empty folder."""
    one = clones["one"]
    one.make(BEFORE)
    one.sync()
    leave(clones.folder / "store")
    with pytest.raises(NeedsConfirmation, match="is gone") as caught:
        one.sync()
    assert caught.value.exit_code == 5
    assert not list((clones.folder / "store").rglob("*.json"))
    one.sync(yes=True)
    assert clones.stored() == BEFORE
    one.make({**BEFORE, "new": b"new"})
    one.sync()
