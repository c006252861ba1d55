"""A file system without renames: what stands under a name is replaced in place, and nothing else is touched."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from amlctl.localfs.atomic import move


@pytest.fixture
def no_renames(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "replace", refuse)


@pytest.mark.usefixtures("no_renames")
@pytest.mark.parametrize("kind", ["missing", "file", "longer", "read-only", "link", "hard link", "dangling link"])
def test_only_the_name_is_replaced(tmp_path: Path, kind: str) -> None:
    source, target, other = tmp_path / "source", tmp_path / "target", tmp_path / "other"
    source.write_bytes(b"new")
    other.write_bytes(b"another's")
    if kind in ("file", "longer", "read-only"):
        target.write_bytes(b"old" * (1 if kind == "file" else 1000))
        target.chmod(0o444 if kind == "read-only" else 0o644)
    elif kind == "link":
        target.symlink_to(other)
    elif kind == "hard link":
        os.link(other, target)
    elif kind == "dangling link":
        target.symlink_to(tmp_path / "nowhere")
    move(source, target)
    assert target.read_bytes() == b"new"
    assert not target.is_symlink()
    assert other.read_bytes() == b"another's"
    assert not source.exists()
    assert not (tmp_path / "nowhere").exists()


def test_a_rename_that_is_refused_for_its_target_alone_is_not_replaced_by_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder with the sticky bit: another user's file there may be written, but not replaced."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    replace = os.replace

    def refuse(what: Any, where: Any) -> None:
        if os.fspath(where) == os.fspath(target):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), os.fspath(where))
        replace(what, where)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError):
        move(source, target)
    assert (source.read_bytes(), target.read_bytes()) == (b"new", b"old")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]
