"""A store on a mount that refuses what is dispensable keeps the promises of stores all the same."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from amlctl.stores.contract import Store
from amlctl.stores.directory import DirectoryStore
from tests.contract.store import StoreSuite
from tests.support import refusing_os


@pytest.fixture(params=refusing_os.cases(), ids=":".join)
def mount(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    operations, error = request.param
    root = tmp_path / "mount"
    root.mkdir()
    refusing_os.install(root, operations, error, monkeypatch.setattr)
    return root


class TestStoreOnRefusingMount(StoreSuite):
    @pytest.fixture
    def store(self, mount: Path) -> Store:
        return DirectoryStore(mount / "store")

    @pytest.fixture
    def reopened(self, mount: Path) -> Callable[[], Store]:
        return lambda: DirectoryStore(mount / "store")


def test_the_mount_does_refuse(mount: Path, request: pytest.FixtureRequest) -> None:
    """So that the suite above is one on such a mount."""
    path = mount / "file"
    path.write_bytes(b"1")
    with path.open("rb") as file:
        calls: dict[str, Callable[[], object]] = {
            "chmod": lambda: path.chmod(0o600),
            "rename": lambda: path.rename(mount / "other"),
            "utime": lambda: os.utime(path),
            "link": lambda: os.link(path, mount / "link"),
            "symlink": lambda: (mount / "symlink").symlink_to(path),
            "append": lambda: path.open("ab"),
            "fsync": lambda: os.fsync(file.fileno()),
            "flock": lambda: fcntl.flock(file, fcntl.LOCK_EX),
        }
        for operation in request.node.callspec.params["mount"][0].split("+"):
            with pytest.raises(OSError, match=r"."):
                calls[operation]()
