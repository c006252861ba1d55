"""Disks that ignore the case of names, or give every file the same mode: a clone there stays in step with others."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support import folding_os
from tests.support.clones import Clones
from tests.support.trees import write_tree


@pytest.fixture
def clones(tmp_path: Path) -> Clones:
    return Clones(tmp_path)


def test_another_spelling_in_the_store_is_taken_over_on_a_disk_that_ignores_case(
    clones: Clones, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that a colleague has renamed is not in the way, and deleting its old name leaves the new one."""
    one, two = clones["one"], clones["two"]
    before = {
        "IMG.JPG": b"1",
        "edited.txt": b"2",
        "Sub/Deep/a": b"3",
        "Sub/Deep/b": b"4",
        "\u00e9": b"5",
        "Empty/": b"",
    }
    one.make(before)
    one.sync()
    folding_os.install(two.root, monkeypatch.setattr)
    two.pull()
    after = {
        "img.jpg": b"1",
        "Edited.TXT": b"new",
        "sub/deep/a": b"3",
        "sub/deep/b": b"4",
        "e\u0301": b"5",
        "empty/": b"",
    }
    one.make(after)
    one.sync()
    write_tree(two.root, {"Sub/Deep/mine": b"6"})
    two.pull()
    assert two.tree == {**after, "sub/deep/mine": b"6"}
    assert two.status().new == ["sub/deep/mine"]
    two.sync()
    one.pull()
    assert one.tree == two.tree


@contextmanager
def _all_executable() -> Iterator[None]:
    """Every file is, as on a Windows drive, on exFAT and on most SMB shares."""

    def wrapped(real: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def call(*arguments: Any, **named: Any) -> os.stat_result:
            found = real(*arguments, **named)
            kind, (values, more) = cast("Any", found.__reduce__())
            changed: os.stat_result = kind((values[0] | 0o777, *values[1:]), more)
            return changed if stat.S_ISREG(found.st_mode) else found

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("stat", "lstat", "fstat"):
            patch.setattr(os, name, wrapped(getattr(os, name)))
        yield


def test_a_disk_on_which_every_file_is_executable_changes_none(clones: Clones) -> None:
    one, two = clones["one"], clones["two"]
    one.make({"a": b"1", "d/b": b"2", "tool": b"3"})
    (one.root / "tool").chmod(0o755)
    snapshot = one.sync().snapshot
    with _all_executable():
        two.pull()
        assert two.status().modified == []
        assert two.sync().snapshot == snapshot
        write_tree(two.root, {"new": b"4"})
        assert two.sync().modified == 0
        two.sync_until_settled()
        assert two.sync().requests == 1
    write_tree(one.root, {"a": b"edited"})
    one.pull()
    one.sync()
    assert [bool(os.stat(one.root / name).st_mode & 0o100) for name in ("a", "new", "tool")] == [False, False, True]
    with _all_executable():
        two.pull()
        assert two.tree == one.tree
