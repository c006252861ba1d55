from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from amlctl.localfs.target import TargetFolders


@pytest.mark.parametrize("folder", ["", "d"])
def test_a_disk_that_fails_does_not_say_that_a_folder_was_moved(
    tmp_path: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "root/d").mkdir(parents=True)
    with TargetFolders(tmp_path / "root") as folders:
        folders.opened(folder)
        assert folders.is_in_place(folder)
        with monkeypatch.context() as patch:
            for name in ("stat", "lstat"):
                patch.setattr(os, name, _fails)
            with pytest.raises(OSError, match="Input/output error"):
                folders.is_in_place(folder)
        (tmp_path / "root").rename(tmp_path / "elsewhere")
        assert not folders.is_in_place(folder)


def _fails(path: object, **named: object) -> os.stat_result:
    raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
