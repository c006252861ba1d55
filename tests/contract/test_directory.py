"""A folder as the store keeps the promises of stores."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from amlctl.errors import NotFound, ServiceUnavailable, SettingsError
from amlctl.localfs.atomic import TEMPORARY_PREFIX, temporary_name
from amlctl.stores.contract import Store
from amlctl.stores.directory import DirectoryStore
from tests.contract.store import StoreSuite
from tests.support.another_disk import another_disk


class TestDirectoryStore(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return DirectoryStore(tmp_path / "store")

    @pytest.fixture
    def reopened(self, tmp_path: Path) -> Callable[[], Store]:
        return lambda: DirectoryStore(tmp_path / "store")

    def test_immutable_values_are_read_only(self, store: Store) -> None:
        store.put("objects/aa/x", b"1")
        store.put("packs/aa/x.zip", b"1")
        for key in ("objects/aa/x", "packs/aa/x.zip"):
            path = store.local_path(key)
            assert path is not None
            assert path.stat().st_mode & 0o777 == 0o444

    @pytest.mark.parametrize(("root_mode", "folders", "lock"), [(0o2775, 0o2775, 0o664), (0o755, 0o700, 0o600)])
    def test_what_is_made_belongs_to_all_who_may_write_to_the_folder(
        self, tmp_path: Path, root_mode: int, folders: int, lock: int
    ) -> None:
        """Else one member of a team whose umask is 022 or 077 would keep the others out."""
        root = tmp_path / "store"
        root.mkdir()
        root.chmod(root_mode)
        before = os.umask(0o077)
        try:
            DirectoryStore(root).put("objects/aa/x", b"1")
            DirectoryStore(root, may_be_new=False).swap("datasets/a/HEAD", b"1", expected=None)
        finally:
            os.umask(before)
        for folder in ("objects", "objects/aa", "datasets", "datasets/a"):
            assert (root / folder).stat().st_mode & 0o7777 == folders, folder
        assert (root / ".amlctl-lock").stat().st_mode & 0o777 == lock

    def test_a_killed_writer_leaves_no_value(self, tmp_path: Path) -> None:
        """The process dies after the bytes are written and before they appear."""
        program = (
            "import os, sys\nfrom pathlib import Path\nfrom amlctl.stores.directory import DirectoryStore\n"
            "os.link = lambda *names: os._exit(9)\n"
            "DirectoryStore(Path(sys.argv[1])).put('objects/aa/x', b'12345')\n"
        )
        root = tmp_path / "store"
        assert subprocess.run([sys.executable, "-c", program, str(root)], check=False).returncode == 9
        assert list(DirectoryStore(root).list("")) == []
        assert DirectoryStore(root).info("objects/aa/x") is None

    def test_a_file_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "store").mkdir()
        (tmp_path / "store/objects").write_text("a file")
        with pytest.raises(SettingsError, match="a file stands where a folder is needed"):
            DirectoryStore(tmp_path / "store").put("objects/aa/x", b"1")

    def test_only_who_may_begin_a_store_makes_its_folder(self, tmp_path: Path) -> None:
        root = tmp_path / "store"
        store = DirectoryStore(root, may_be_new=False)
        writes: list[Callable[[], object]] = [
            lambda: store.put("objects/aa/x", b"1"),
            lambda: store.put("top", b"1"),
            lambda: store.swap("heads/x", b"1", expected=None),
        ]
        for write in writes:
            with pytest.raises(NotFound):
                write()
            assert not root.exists()
        root.mkdir()
        for write in writes:
            write()
        assert {entry.key for entry in store.list("")} == {"top", "heads/x", "objects/aa/x"}

    def test_a_full_disk(self, tmp_path: Path) -> None:
        """The real error of a real device that is always full."""
        if not Path("/dev/full").exists():
            pytest.skip("no /dev/full on this system")
        root = tmp_path / "store"
        store = DirectoryStore(root)
        (root / "objects" / "aa").mkdir(parents=True)
        program = (
            "import resource, signal, sys\nfrom pathlib import Path\n"
            "from amlctl.stores.directory import DirectoryStore, _translate\n"
            "try:\n    open('/dev/full', 'wb', buffering=0).write(b'x')\n"
            "except OSError as error:\n    print(type(_translate(error, 'k', 'u')).__name__)\n"
        )
        shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
        assert shown.strip() == ServiceUnavailable.__name__
        assert list(store.list("")) == []
        assert os.listdir(root / "objects" / "aa") == []

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
    def test_a_full_disk_under_a_download_is_not_the_stores(self, store: Store) -> None:
        store.put("objects/aa/x", b"1" * 100_000)
        with pytest.raises(ServiceUnavailable, match=r"^/dev: no space left on the disk mounted at /dev"):
            store.download("objects/aa/x", Path("/dev/full"))

    def test_a_folder_to_download_to_that_is_not_there_is_not_the_stores(self, store: Store, tmp_path: Path) -> None:
        store.put("objects/aa/x", b"1")
        with pytest.raises(FileNotFoundError, match="gone"):
            store.download("objects/aa/x", tmp_path / "gone" / "x")

    def test_a_share_that_reports_only_at_the_end_that_it_is_full(self, tmp_path: Path) -> None:
        """As NFS and quotas do: what was written is lost, and `close` says so."""
        program = (
            "import errno, os, sys\nfrom pathlib import Path\n"
            "from amlctl.errors import AmlctlError\nfrom amlctl.stores.directory import DirectoryStore\n"
            "really_close = os.close\n"
            "def close(descriptor):\n"
            "    os.ftruncate(descriptor, 3)\n"
            "    really_close(descriptor)\n"
            "    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))\n"
            "os.close = close\n"
            "store = DirectoryStore(Path(sys.argv[1]))\n"
            "try:\n"
            "    store.put('packs/aa/x.zip', b'12345', replace=True)\n"
            "except AmlctlError as error:\n    print(error.exit_code)\n"
        )
        root = tmp_path / "store"
        DirectoryStore(root).put("packs/aa/x.zip", b"before")
        command = [sys.executable, "-c", program, str(root)]
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == "6"
        assert DirectoryStore(root).get("packs/aa/x.zip") == b"before"
        assert [path.name for path in root.rglob("*") if path.is_file()] == ["x.zip"]

    def test_packs_may_lie_on_another_disk(self, tmp_path: Path) -> None:
        root = tmp_path / "store"
        root.mkdir()
        with another_disk(tmp_path) as folder:
            (root / "packs").symlink_to(folder)
            store = DirectoryStore(root)
            assert store.put("packs/aa/x.zip", b"12345")
            assert store.get("packs/aa/x.zip") == b"12345"

    def test_a_disk_that_fills_up_in_the_middle_of_a_pack(self, tmp_path: Path) -> None:
        """A limit of file sizes cuts a write short, as a full disk does: the rest fails, and nothing appears."""
        program = (
            "import resource, signal, sys\nfrom pathlib import Path\n"
            "from amlctl.errors import AmlctlError\nfrom amlctl.stores.directory import DirectoryStore\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
            "try:\n    DirectoryStore(Path(sys.argv[1])).put('packs/aa/x.zip', [b'1' * 1000] * 9)\n"
            "except AmlctlError as error:\n    print(error.exit_code)\n"
        )
        root = tmp_path / "store"
        shown = subprocess.run(
            [sys.executable, "-c", program, str(root)], check=True, capture_output=True, text=True
        ).stdout
        assert shown.strip() == "6"
        assert list(DirectoryStore(root).list("")) == []
        assert [path.name for path in root.rglob("*") if path.is_file()] == []

    def test_what_killed_writers_have_left_goes_with_the_next_write(self, tmp_path: Path) -> None:
        """A real process dies in the middle of each kind of write; one that is alive keeps its file."""
        root = tmp_path / "store"
        program = (
            "import os, sys\nfrom pathlib import Path\nfrom amlctl.stores.directory import DirectoryStore\n"
            "os.link = os.replace = os.rename = Path.replace = lambda *names: os._exit(9)\n"
            "store = DirectoryStore(Path(sys.argv[1]))\n"
            "if sys.argv[2] == 'swap':\n    store.swap('datasets/d/HEAD', b'1', expected=None)\n"
            "store.put(sys.argv[2], b'12345', replace=True)\n"
        )
        alive = root / "packs" / temporary_name()
        alive.parent.mkdir(parents=True)
        alive.write_bytes(b"of a living process")
        for kind in ("swap", "packs/aa/x.zip", "objects/aa/x", "mirror/d/f", "runs/r/outputs/f", "code/c/f", "top"):
            command = [sys.executable, "-c", program, str(root), kind]
            assert subprocess.run(command, check=False).returncode == 9
        # Each of them has removed what the one before it had left.
        left = list(root.rglob(f"{TEMPORARY_PREFIX}*"))
        assert len(left) == 2, left
        DirectoryStore(root).put("packs/aa/y.zip", b"y")
        assert list(root.rglob(f"{TEMPORARY_PREFIX}*")) == [alive]

    def test_a_folder_further_down_may_lie_on_another_disk(self, tmp_path: Path) -> None:
        root = tmp_path / "store"
        (root / "objects").mkdir(parents=True)
        with another_disk(tmp_path) as folder:
            (root / "objects" / "aa").symlink_to(folder)
            store = DirectoryStore(root)
            assert store.put("objects/aa/x", b"12345")
            assert not store.put("objects/aa/x", b"12345")
            assert store.get("objects/aa/x") == b"12345"
            assert list(root.rglob(f"{TEMPORARY_PREFIX}*")) == []

    def test_a_name_that_is_too_long_is_refused_before_it_is_written(self, tmp_path: Path) -> None:
        store = DirectoryStore(tmp_path / "store")
        store.check_key("mirror/" + "ü" * 127)
        with pytest.raises(SettingsError, match="at most 255 bytes"):
            store.check_key("mirror/" + "ü" * 128)
