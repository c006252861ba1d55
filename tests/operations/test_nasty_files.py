"""Nasty but ordinary: each has one behavior, written down in `docs/store-format.md`, and a test here."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import unicodedata
from pathlib import Path

import pytest

from amlctl.core.events import Event, Stage, StageProgress, Warned
from amlctl.core.manifest import Manifest
from amlctl.core.settings import LayoutName
from amlctl.errors import Conflict, NotFound, UsageError
from amlctl.localfs.project import Project
from amlctl.operations.sync.pull import pull
from amlctl.operations.sync.sync import SyncOptions, SyncResult, sync
from amlctl.snapshots.manifests import read_manifest
from amlctl.stores.directory import DirectoryStore
from tests.support.clones import Clones
from tests.support.context import Context
from tests.support.rights import ROOT_READS_ALL, run_without_root_rights
from tests.support.trees import Tree, read_tree, write_tree

DATASET = "working/nasty"
OPTIONS = SyncOptions()


class Box:
    """A project with one dataset, its store, and a second clone to pull into."""

    def __init__(self, folder: Path) -> None:
        self.project = Project(folder / "one")
        self.clone = Project(folder / "two")
        self.store = DirectoryStore(folder / "store")
        self.root = self.project.dataset_path(DATASET)
        self.root.mkdir(parents=True)
        self.clone.data_blobs_dir.mkdir(parents=True)
        self.events: list[Event] = []

    def sync(self, options: SyncOptions = OPTIONS) -> SyncResult:
        return sync(Context(self.project, self.store, self.events.append), DATASET, options)

    def pulled(self) -> Tree:
        pull(Context(self.clone, self.store), DATASET, OPTIONS)
        return read_tree(self.clone.dataset_path(DATASET))

    def manifest(self, result: SyncResult) -> Manifest:
        return read_manifest(self.store, result.manifest_key)

    @property
    def warnings(self) -> list[str]:
        return [event.message for event in self.events if isinstance(event, Warned)]


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


NAMES: Tree = {
    "with space.txt": b"1",
    'quote\'s "double".txt': b"2",
    "new\nline": b"3",
    "tab\tand\rreturn": b"4",
    "per%20cent": b"5",
    "back\\slash": b"6",
    "-dash": b"7",
    "~tilde": b"8",
    "x" * 255: b"9",
    "日本語/ü/é": b"10",
    ".hidden": b"11",
    "trailing.": b"12",
    "HEAD": b"13",
    "a.gz/shards/HEAD": b"14",
}


@pytest.mark.parametrize("layout", ["pack", "mirror"])
def test_names_come_back_as_they_were(box: Box, layout: LayoutName) -> None:
    write_tree(box.root, NAMES)
    box.sync(SyncOptions(layout=layout))
    assert box.pulled() == NAMES


@pytest.mark.skipif(sys.platform == "darwin", reason="APFS takes no name that is not UTF-8")
@pytest.mark.parametrize("layout", ["pack", "mirror"])
def test_names_that_are_not_utf8(box: Box, layout: LayoutName) -> None:
    tree = {os.fsdecode(b"\xff\xfe.bin"): b"1", os.fsdecode(b"latin-\xe9"): b"2", "plain": b"3"}
    write_tree(box.root, tree)
    box.sync(SyncOptions(layout=layout))
    assert box.pulled() == tree


@pytest.mark.skipif(sys.platform == "darwin", reason="the file system folds these names into one")
def test_twins_by_case_and_by_normal_form_are_kept_and_reported(box: Box) -> None:
    accent = unicodedata.normalize("NFC", "é")
    tree = {"A": b"1", "a": b"2", accent: b"3", unicodedata.normalize("NFD", accent): b"4"}
    write_tree(box.root, tree)
    box.sync()
    assert box.pulled() == tree
    assert len([message for message in box.warnings if "one name on some file systems" in message]) == 2


def test_empty_files_and_folders_come_back(box: Box) -> None:
    tree = {"empty": b"", "folder/": b"", "deep/er/": b"", "full/file": b"x"}
    write_tree(box.root, tree)
    result = box.sync()
    assert (result.files, result.bytes) == (4, 1)
    assert box.pulled() == tree


def test_an_empty_dataset_is_a_dataset(box: Box) -> None:
    assert box.sync().files == 0
    assert box.pulled() == {}


def test_one_file_is_a_dataset(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.root.rmdir()
    box.root.write_bytes(b"a single file")
    result = box.sync()
    assert (result.files, result.bytes) == (1, 13)
    pull(Context(box.clone, box.store), DATASET, OPTIONS)
    assert box.clone.dataset_path(DATASET).read_bytes() == b"a single file"


def test_links_to_files_and_folders_are_followed(box: Box, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write_tree(outside, {"far/file": b"far away"})
    write_tree(box.root, {"real": b"near"})
    (box.root / "to-file").symlink_to("real")
    (box.root / "to-outside").symlink_to(outside)
    (box.root / "to-outside-file").symlink_to(outside / "far/file")
    box.sync()
    assert box.pulled() == {
        "real": b"near",
        "to-file": b"near",
        "to-outside/far/file": b"far away",
        "to-outside-file": b"far away",
    }


def test_links_that_dangle_or_loop_are_left_out_with_a_warning(box: Box) -> None:
    write_tree(box.root, {"sub/file": b"1"})
    (box.root / "dangling").symlink_to("nowhere")
    (box.root / "sub" / "up").symlink_to("..")
    (box.root / "itself").symlink_to("itself")
    box.sync()
    assert box.pulled() == {"sub/file": b"1"}
    assert sum("dangling" in message for message in box.warnings) == 1
    assert sum("leads back" in message for message in box.warnings) == 1
    assert sum("itself" in message for message in box.warnings) == 1


def test_hard_links_are_two_files_with_one_content(box: Box) -> None:
    write_tree(box.root, {"one": b"same bytes" * 100})
    os.link(box.root / "one", box.root / "two")
    assert box.sync().uploaded_blobs == 1
    assert box.pulled() == {"one": b"same bytes" * 100, "two": b"same bytes" * 100}


def test_executable_bits_travel_and_count_as_changes(box: Box) -> None:
    write_tree(box.root, {f"tool{n}": b"#!/bin/sh\n" for n in range(10)})
    first = box.sync()
    (box.root / "tool3").chmod(0o755)
    second = box.sync()
    assert second.snapshot != first.snapshot
    assert (second.modified, second.uploaded_blobs) == (1, 0)
    box.pulled()
    clone = box.clone.dataset_path(DATASET)
    assert (clone / "tool3").stat().st_mode & 0o111
    assert not (clone / "tool4").stat().st_mode & 0o111


def test_sockets_and_fifos_are_left_out_with_a_warning(box: Box) -> None:
    write_tree(box.root, {"file": b"1"})
    os.mkfifo(box.root / "fifo")
    # The path of a socket is short: bind below the folder itself.
    here = Path.cwd()
    os.chdir(box.root)
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("socket")
    finally:
        os.chdir(here)
    box.sync()
    assert box.pulled() == {"file": b"1"}
    assert sum("neither a file nor a folder" in message for message in box.warnings) == 2


@pytest.mark.parametrize("kind", ["fifo", "loop"])
def test_only_a_file_or_folder_can_be_a_dataset(box: Box, kind: str) -> None:
    box.root.rmdir()
    if kind == "fifo":
        os.mkfifo(box.root)
    else:
        box.root.symlink_to(box.root)
    with pytest.raises(UsageError, match="nasty"):
        box.sync()
    assert box.store.get_versioned("datasets/working/nasty/HEAD") is None


def test_a_dataset_below_a_file_is_not_here(box: Box) -> None:
    box.root.rmdir()
    box.root.write_bytes(b"a single file")
    with pytest.raises(NotFound, match="is not on this machine"):
        sync(Context(box.project, box.store), f"{DATASET}/inside", OPTIONS)


@ROOT_READS_ALL
def test_unreadable_files_are_all_named_and_nothing_is_committed(box: Box) -> None:
    tree: Tree = {"fine": b"1", "closed": b"2", "sub/closed": b"3", "shut/inside": b"4", "listed/inside": b"5"}
    write_tree(box.root, tree)
    for name in ("closed", "sub/closed", "shut"):
        (box.root / name).chmod(0)
    (box.root / "listed").chmod(0o444)  # its names can be read, and nothing else
    program = (
        "import sys\nfrom pathlib import Path\nfrom types import SimpleNamespace\n"
        "from amlctl.operations.sync.sync import sync, SyncOptions\n"
        "from amlctl.localfs.project import Project\nfrom amlctl.stores.directory import DirectoryStore\n"
        "from amlctl.errors import RightsError\n"
        "store = DirectoryStore(Path(sys.argv[2]))\n"
        "context = SimpleNamespace(project=Project(Path(sys.argv[1])), store=store, sink=id)\n"
        "try:\n    sync(context, sys.argv[3], SyncOptions())\n"
        "except RightsError as error:\n    print(*error.details, sep='|')\n"
    )
    shown = run_without_root_rights(program, str(box.project.root), box.store.url, DATASET)
    for name in ("shut", "listed"):
        (box.root / name).chmod(0o755)
    named = ("closed", "listed/inside", "shut", "sub/closed")
    assert shown.stdout.strip() == "|".join(f"{name}: Permission denied" for name in named), shown.stderr
    assert box.store.get_versioned("datasets/working/nasty/HEAD") is None


def test_a_file_that_keeps_changing_is_a_conflict_not_a_lie(box: Box) -> None:
    """A writer appends all the time, from another thread, while the large file is being read."""
    path = box.root / "growing"
    path.write_bytes(b"x" * (32 << 20))
    stop = threading.Event()

    def write() -> None:
        with path.open("ab", buffering=0) as file:
            while not stop.is_set():
                file.write(b"y" * 4096)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with pytest.raises(Conflict, match="change"):
            box.sync()
    finally:
        stop.set()
        writer.join()
    assert box.store.get_versioned("datasets/working/nasty/HEAD") is None
    box.sync()
    assert box.pulled() == {"growing": path.read_bytes()}


@pytest.mark.parametrize("size_bytes", [5 << 20, 20 << 20])
def test_a_file_that_shrinks_or_grows_while_it_is_read_is_read_again(box: Box, size_bytes: int) -> None:
    path = box.root / "file"
    path.write_bytes(b"x" * (9 << 20))

    def sink(event: Event) -> None:
        if isinstance(event, StageProgress) and event.stage is Stage.HASH and path.stat().st_size != size_bytes:
            os.truncate(path, size_bytes)

    result = sync(Context(box.project, box.store, sink), DATASET, OPTIONS)
    assert result.bytes == size_bytes
    assert box.pulled() == {"file": path.read_bytes()}


@pytest.mark.parametrize("size_bytes", [20, 9 << 20])
@pytest.mark.parametrize("layout", ["auto", "mirror"])
def test_a_file_that_vanishes_before_it_is_sent_is_a_conflict(box: Box, layout: LayoutName, size_bytes: int) -> None:
    path = box.root / "file"
    path.write_bytes(b"x" * size_bytes)
    (box.root / "other").write_bytes(b"other")

    def sink(event: Event) -> None:
        if isinstance(event, StageProgress) and event.stage is Stage.HASH and event.is_done:
            path.unlink()

    with pytest.raises(Conflict, match="file"):
        sync(Context(box.project, box.store, sink), DATASET, SyncOptions(layout=layout))
    assert box.store.get_versioned("datasets/working/nasty/HEAD") is None
    box.sync(SyncOptions(layout=layout))
    assert box.pulled() == {"other": b"other"}


def test_a_file_that_vanishes_between_scan_and_read_counts_as_deleted(box: Box) -> None:
    write_tree(box.root, {f"f{n}": b"%d" % n for n in range(20)})

    def sink(event: Event) -> None:
        (box.root / "f7").unlink(missing_ok=True)

    result = sync(Context(box.project, box.store, sink), DATASET, OPTIONS)
    assert result.files == 19
    assert "f7" not in box.pulled()


def test_a_file_changed_just_now_is_read_again(box: Box) -> None:
    """Same size, same time stamp to the nanosecond: only the two-second rule can notice."""
    path = box.root / "file"
    path.write_bytes(b"first")
    stat = path.stat()
    first = box.sync()
    with path.open("r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    second = box.sync()
    assert second.snapshot != first.snapshot
    assert box.pulled() == {"file": b"other"}


def test_ignored_files_stay_here(box: Box) -> None:
    write_tree(box.root, {"keep": b"1", "drop.tmp": b"2", "cache/deep/file": b"3", ".amlctlignore": b"*.tmp\ncache/\n"})
    box.sync()
    assert box.pulled() == {"keep": b"1", ".amlctlignore": b"*.tmp\ncache/\n"}


def test_a_file_becomes_a_folder_and_back(box: Box) -> None:
    write_tree(box.root, {"thing": b"file", "other/x": b"1"})
    box.sync()
    box.pulled()
    (box.root / "thing").unlink()
    shutil.rmtree(box.root / "other")
    write_tree(box.root, {"thing/inside": b"folder", "other": b"file"})
    box.sync()
    assert box.pulled() == {"thing/inside": b"folder", "other": b"file"}
    shutil.rmtree(box.root / "thing")
    (box.root / "thing").write_bytes(b"file")
    box.sync()
    assert box.pulled() == {"thing": b"file", "other": b"file"}


def test_a_missing_folder_is_not_a_deletion(box: Box) -> None:
    write_tree(box.root, {"file": b"1"})
    box.sync()
    shutil.rmtree(box.root)
    with pytest.raises(NotFound, match="is not on this machine; it is in the store"):
        box.sync()
    assert box.pulled() == {"file": b"1"}


@pytest.mark.skipif(sys.platform == "darwin", reason="APFS takes no name that is not UTF-8")
@pytest.mark.parametrize("name", ["sp ace", "quo'te", "HEAD", os.fsdecode(b"no utf8 \xff")])
def test_folders_of_project_store_and_dataset_may_be_called_anything(tmp_path: Path, name: str) -> None:
    clones = Clones(tmp_path / name)
    one, dataset = clones["one"], f"working/{name}"
    one.make({"a": b"1"}, dataset)
    assert one.sync(dataset).added == 1
    assert list(one.status(dataset).new) == []
    assert clones.stored(dataset) == {"a": b"1"}
    shutil.rmtree(one.project.dataset_path(dataset))
    with pytest.raises(NotFound) as caught:
        one.sync(dataset)
    typed = subprocess.run(
        ["bash", "-c", f"amlctl() {{ printf '%s\\0' \"$@\"; }}; {caught.value.hint}"], capture_output=True, check=True
    )
    assert typed.stdout == b"".join(os.fsencode(word) + b"\0" for word in ("sync", "--pull", f"data_blobs/{dataset}"))
    one.pull(dataset)
    assert one.sync(dataset).unchanged == 1


def test_a_pointer_of_git_lfs_is_said_not_to_be_the_data(box: Box) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4d' * 32}\nsize 12345\n"
    write_tree(box.root, {"a.png": pointer.encode(), "b.png": b"x" * len(pointer)})
    box.sync()
    assert box.warnings[-1] == (
        f"1 file of {DATASET}: pointers of Git LFS instead of the data, such as a.png; to download it: git lfs pull"
    )
