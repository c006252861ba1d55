from __future__ import annotations

import os
from pathlib import Path

import pytest

from amlctl.localfs.folders import make_folders, remove_tree, walk
from tests.support.rights import run_without_root_rights
from tests.support.trees import read_tree, write_tree

DEEP = "/".join(["d"] * 1_100)
"""More levels than Python has frames by default."""


def test_folders_of_any_depth(tmp_path: Path) -> None:
    top = tmp_path / "top"
    make_folders(f"{top}/{DEEP}")
    make_folders(f"{top}/{DEEP}")
    with open(f"{top}/{DEEP}/file", "w") as file:
        file.write("x")
    assert [others for _, _, others in walk(top)][-1] == ["file"]
    remove_tree(top)
    assert not top.exists()


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError):
        make_folders(tmp_path / "file")
    with pytest.raises(NotADirectoryError):
        make_folders(tmp_path / "file/below/it")


def test_links_are_neither_followed_nor_emptied(tmp_path: Path) -> None:
    write_tree(tmp_path / "kept", {"a": b"1"})
    write_tree(tmp_path / "top", {"b": b"2"})
    (tmp_path / "top/link").symlink_to(tmp_path / "kept")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    assert [(folders, sorted(others)) for _, folders, others in walk(tmp_path / "top")] == [([], ["b", "link"])]
    remove_tree(tmp_path / "top")
    remove_tree(tmp_path / "link")
    assert sorted(os.listdir(tmp_path)) == ["kept"]
    assert read_tree(tmp_path / "kept") == {"a": b"1"}


_REMOVE = """
import os, sys
from amlctl.localfs.folders import remove_tree
top = sys.argv[1]
os.makedirs(f"{top}/a/b/c")
open(f"{top}/a/b/c/file", "w").close()
for path, mode in (("a/b/c", 0), ("a/b", 0o500), ("a", 0o600)):
    os.chmod(f"{top}/{path}", mode)
try:
    remove_tree(top, opens_closed=False)
except OSError:
    remove_tree(top, ignore_errors=True)
    print(os.path.exists(top))
"""


def test_closed_folders_are_removed_too(tmp_path: Path) -> None:
    """A script may close what it has made; the user's own folders stay as they are."""
    done = run_without_root_rights(_REMOVE, str(tmp_path / "top"))
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_what_is_missing_or_a_file_is_not_removed_in_silence(tmp_path: Path) -> None:
    remove_tree(tmp_path / "missing", ignore_errors=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError):
        remove_tree(tmp_path / "file")


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that takes none")
def test_a_folder_that_takes_none_is_an_error_not_a_loop() -> None:
    with pytest.raises(FileNotFoundError):
        make_folders("/proc/amlctl/store")
