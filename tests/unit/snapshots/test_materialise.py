"""Large objects in a run's container: links where nothing can be written through them, else copies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from amlctl.runs.produced import Publisher
from amlctl.snapshots.receive import materialise
from amlctl.stores.directory import DirectoryStore
from tests.support.ordinary_user import open_folder, ordinary_user

LARGE = os.urandom(2 << 20)


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as made:
        yield made


def _place(folder: Path, mode: str) -> Path:
    """`large.bin` of a snapshot, where a run finds it."""
    source, store = folder / "source", DirectoryStore(folder / "store")
    source.mkdir()
    (source / "large.bin").write_bytes(LARGE)
    published = Publisher(store, source, "raw").publish()
    materialise(store, published.manifest_key, folder / "target", mode=mode)
    return folder / "target/large.bin"


def test_an_ordinary_user_gets_a_link(folder: Path) -> None:
    with ordinary_user():
        placed = _place(folder, "mount")
        assert placed.is_symlink()
        assert placed.read_bytes() == LARGE
        with pytest.raises(PermissionError):
            placed.open("ab")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may write what is read-only")
def test_root_gets_a_copy(folder: Path) -> None:
    placed = _place(folder, "mount")
    placed.write_bytes(b"written by the script")
    assert [path.read_bytes() for path in (folder / "store/objects").rglob("*") if path.is_file()] == [LARGE]


def test_download_makes_copies(folder: Path) -> None:
    with ordinary_user():
        placed = _place(folder, "download")
        placed.write_bytes(b"written by the script")
    assert [path.read_bytes() for path in (folder / "store/objects").rglob("*") if path.is_file()] == [LARGE]
