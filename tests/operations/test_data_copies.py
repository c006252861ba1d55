"""Copies of datasets that go from run to run: no run sees what another one has written."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from amlctl.core.manifest import FileEntry
from amlctl.operations.sync.sync import SyncOptions, sync
from amlctl.stores.azure_blob.store import AzureBlobStore
from amlctl.workspaces.local import data_copies
from amlctl.workspaces.local.data_copies import DataCopies, repaired, rows_of
from amlctl.workspaces.local.workspace import LocalWorkspace
from tests.support.azurite import Azurite
from tests.support.bench import Bench

SHOW = """
import os, pathlib
data = pathlib.Path("data_blobs/images")
for path in sorted(data.rglob("*")):
    if path.is_file():
        print(path.relative_to(data), path.read_text(), path.stat().st_ino)
    else:
        print(path.relative_to(data), sorted(os.listdir(path)))
"""
TOUCH = """
import os, pathlib, shutil
data = pathlib.Path("data_blobs/images")
def sly(path):
    seen = path.stat()
    path.write_text("other")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
sly(data / "a.txt")
(data / "b.txt").unlink()
(data / "sub/new.txt").write_text("added")
(data / "sub/more").mkdir()
os.link(data / "sub/c.txt", "outside.txt")
pathlib.Path("outside.txt").write_text("through the link")
shutil.move(data / "other", "moved")
(data / "other").symlink_to(pathlib.Path("moved").absolute())
os.chmod(data / "sub/d.txt", 0o600)
"""
STEAL = """
import os, shutil, pathlib
shutil.rmtree("data_blobs/images")
os.symlink({target!r}, "data_blobs/images")
"""
MOVE = """
import os
os.rename({moved!r}, {to!r})
os.symlink({to!r}, {moved!r})
"""


@pytest.fixture
def images(bench: Bench) -> Bench:
    for path in ("a.txt", "b.txt", "sub/c.txt", "sub/d.txt", "other/e.txt"):
        bench.write(f"data_blobs/images/{path}", path[-5:])
    (bench.project.data_blobs_dir / "images/empty").mkdir()
    # Mounted files are links to where only root can write.
    return bench.with_settings(submit=replace(bench.settings.submit, mode="download"))


def shown(bench: Bench) -> list[str]:
    run = bench.submit(bench.script(SHOW, "show.py"), datasets=["images"]).record
    assert run.status == "Completed"
    return bench.workspace.read_log(run.run, 0).data.decode().splitlines()


def without_inodes(lines: list[str]) -> list[str]:
    return [line if line.endswith("]") else line.rpartition(" ")[0] for line in lines]


def test_the_next_run_gets_the_same_copy(images: Bench) -> None:
    first = shown(images)
    assert without_inodes(first)[:2] == ["a.txt a.txt", "b.txt b.txt"]
    assert "empty []" in first
    assert shown(images) == first


def test_what_a_script_does_to_its_data_is_undone_before_the_next_run(images: Bench) -> None:
    first = shown(images)
    assert images.submit(images.script(TOUCH, "touch.py"), datasets=["images"]).record.status == "Completed"
    second = shown(images)
    assert without_inodes(second) == without_inodes(first)
    kept = set(first) & set(second)
    assert len(kept) < len(first)
    own = images.project.data_blobs_dir / "images"
    assert (own / "a.txt").read_text() == "a.txt"
    assert (own / "sub/c.txt").read_text() == "c.txt"


def test_a_link_in_the_place_of_the_data_moves_nothing_of_the_users(images: Bench) -> None:
    own = images.project.data_blobs_dir / "images"
    text = STEAL.format(target=str(own))
    assert images.submit(images.script(text, "steal.py"), datasets=["images"]).record.status == "Completed"
    assert (own / "a.txt").read_text() == "a.txt"
    assert not list((images.project.state_dir / "data").glob("*/*-*"))


@pytest.mark.parametrize("moved", ["data_blobs", "data_blobs/images"])
def test_data_that_a_script_moves_to_the_user_stays_there(images: Bench, moved: str) -> None:
    to = images.project.data_blobs_dir / "moved"
    text = MOVE.format(moved=moved, to=str(to))
    assert images.submit(images.script(text, "move.py"), datasets=["images"]).record.status == "Completed"
    mine = next(to.rglob("a.txt")).with_name("mine.txt")
    mine.write_text("mine")
    assert images.submit(images.script(TOUCH, "touch.py"), datasets=["images"]).record.status == "Completed"
    assert mine.read_text() == "mine"
    assert mine.with_name("a.txt").read_text() == "a.txt"


def test_folders_that_a_script_has_closed_are_open_to_the_next_run(tmp_path: Path) -> None:
    entries = [FileEntry("sub/a", 1, False, "0" * 32)]
    for folder in ("tree/sub", "tree/added/below"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a").write_text("1")
    rows = rows_of(tmp_path / "tree", entries)
    for folder in ("tree/sub", "tree/added/below", "tree/added", "tree"):
        (tmp_path / folder).chmod(0o500)
    assert repaired(tmp_path / "tree", rows, entries) == []
    assert os.listdir(tmp_path / "tree") == ["sub"]
    assert [(tmp_path / folder).stat().st_mode & 0o700 for folder in ("tree", "tree/sub")] == [0o700, 0o700]


def test_a_copy_becomes_one_of_the_next_snapshot(images: Bench) -> None:
    first = shown(images)
    images.write("data_blobs/images/a.txt", "newer")
    (images.project.data_blobs_dir / "images/b.txt").unlink()
    second = shown(images)
    assert without_inodes(second)[0] == "a.txt newer"
    assert "b.txt" not in " ".join(second)
    assert set(first) & set(second) == set(second) - {second[0]}


def test_each_of_two_runs_has_a_copy_of_its_own(tmp_path: Path) -> None:
    copies = DataCopies(tmp_path, "/store", "images", "mount")
    entries = [FileEntry("a", 1, False, "0" * 32)]
    copy = copies.take(tmp_path / "run")
    copy.tree.mkdir(parents=True)
    (copy.tree / "a").write_text("1")
    copy.note(rows_of(copy.tree, entries))
    copy.tree.rename(tmp_path / "placed")
    copy.is_now_at(tmp_path / "placed")
    copy.give_back()
    taken, none = copies.take(tmp_path / "first"), copies.take(tmp_path / "second")
    assert repaired(taken.tree, taken.rows, entries) == []
    assert none.rows == {}


def test_copies_used_least_recently_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = DataCopies(tmp_path, "/store", "images", "mount")
    monkeypatch.setattr(data_copies, "_LIMIT_BYTES", 25)
    for age in (1, 2, 3):
        folder = tmp_path / f"data/abc/10-{age}"
        folder.mkdir(parents=True)
        os.utime(folder, (1_790_000_000 - age,) * 2)
    monkeypatch.setattr(data_copies, "_UNUSED_S", 1e12)
    copies.make_room()
    assert sorted(path.name for path in (tmp_path / "data/abc").iterdir()) == ["10-1", "10-2"]
    monkeypatch.setattr(data_copies, "_UNUSED_S", 1.0)
    copies.make_room()
    assert [path.name for path in tmp_path.glob("data/*")] == ["abc"]
    assert not list((tmp_path / "data/abc").iterdir())


def test_what_was_uploaded_from_here_is_not_downloaded_again(images: Bench, azurite: Azurite) -> None:
    variables = {"AZURE_STORAGE_KEY": azurite.key}
    store = AzureBlobStore(f"{azurite.url}/{azurite.new_container()}", variables)
    images.store = store
    variables = {**os.environ, **variables}
    images.workspace = LocalWorkspace(images.project, images.settings.workspace(), store, variables=variables)
    sync(images, "images", SyncOptions())
    assert without_inodes(shown(images))[0] == "a.txt a.txt"
    assert received(images) == []
    (images.project.data_blobs_dir / "images").rename(images.project.root / "away")
    for copy in list(images.project.state_dir.glob("data/*/*-*")):
        copy.rename(images.project.root / copy.name)
    assert "a.txt a.txt" in without_inodes(shown(images))  # of the store
    assert received(images)
    store.close()


def received(bench: Bench) -> list[Path]:
    folders = [bench.project.state_dir.glob(f"node-stores/*/{area}/**/*") for area in ("packs", "objects")]
    return [path for folder in folders for path in folder if path.is_file()]
