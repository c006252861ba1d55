"""What each error of the system means to a user: the exit code, the reason, and what to do."""

from __future__ import annotations

import errno
import os
import resource
from contextlib import suppress
from pathlib import Path

import pytest

from amlctl.cli.faults import explained
from amlctl.core.content_id import content_id
from amlctl.errors import Conflict, ServiceUnavailable, SettingsError
from amlctl.localfs.database import Database
from amlctl.localfs.disk_errors import disk_error, failing_disk, limit_error, sending_error
from amlctl.stores.contract import FileBody
from amlctl.stores.directory import DirectoryStore


@pytest.mark.parametrize(
    ("number", "code", "reason", "hint"),
    [
        (errno.ENOSPC, 6, "no space left on the disk", "make room"),
        (errno.EDQUOT, 6, "quota", "make room"),
        (errno.EIO, 6, "input/output error", "dmesg"),
        (errno.ESTALE, 6, "network file system", "mount it again"),
        (errno.ENOTCONN, 6, "not connected", "mount it again"),
        (errno.EMFILE, 6, "too many open files", "ulimit -n"),
        (errno.ENFILE, 6, "too many open files", "end other programs"),
        (errno.ENOMEM, 6, "not enough memory", "ulimit -v"),
        (errno.EAGAIN, 6, "no more threads or processes", "ulimit -u"),
        (errno.EFBIG, 6, "larger than allowed", "ulimit -f"),
        (errno.ETXTBSY, 6, "running", "end that program"),
        (errno.EACCES, 3, "permission denied", "rights"),
        (errno.EPERM, 3, "not permitted", "rights"),
        (errno.EROFS, 3, "read-only", "mount it for writing"),
        (errno.ENAMETOOLONG, 3, "too long", "shorter"),
        (errno.ELOOP, 3, "symbolic links", "link"),
        (errno.ENOTDIR, 3, "a file stands", "move"),
    ],
)
def test_the_table(number: int, code: int, reason: str, hint: str) -> None:
    found = disk_error(OSError(number, "", "/data/file"), "/data/file")
    assert found is not None
    assert found.exit_code == code
    assert found.message.startswith("/data/file: ")
    assert reason in found.message
    assert hint in found.hint
    assert explained(OSError(number, "", "/data/file")) is not None


def test_what_it_does_not_know_stays_what_it_is() -> None:
    assert disk_error(FileNotFoundError(errno.ENOENT, "", "x"), "x") is None
    assert explained(ValueError("x")) is None


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    found = disk_error(OSError(errno.ENOSPC, "", str(tmp_path / "no/such/file")), "a write")
    assert found is not None
    mounted = found.message.partition(" mounted at ")[2]
    assert Path(mounted).is_mount()
    assert found.hint.startswith(f"make room (df -h {mounted})")


def test_threads_and_memory() -> None:
    for error, reason in ((RuntimeError("can't start new thread"), "threads"), (MemoryError(), "memory")):
        found = explained(error)
        assert found is not None
        assert (found.exit_code, reason in found.message) == (6, True)
        assert limit_error(error, "") is not None
    missing = ImportError("libz.so.1: cannot open shared object file: Too many open files")
    assert isinstance(explained(missing), ServiceUnavailable)


def test_one_file_is_not_the_disk() -> None:
    assert failing_disk(PermissionError(errno.EACCES, ""), "x") is None
    assert failing_disk(OSError(errno.EIO, ""), "x") is not None


@pytest.mark.parametrize(("number", "kind"), [(errno.EMFILE, ServiceUnavailable), (errno.ENOENT, Conflict)])
def test_a_file_that_is_sent_has_changed_only_if_it_has_gone(number: int, kind: type) -> None:
    assert type(sending_error(OSError(number, "", "x"), Path("x"))) is kind


def test_a_store_says_that_a_source_has_gone(tmp_path: Path) -> None:
    gone = FileBody(tmp_path / "gone", 1, content_id(b"x"))
    with pytest.raises(Conflict, match="gone changed while it was sent"):
        DirectoryStore(tmp_path / "store").put("objects/x", gone)


def test_a_database_asks_the_system_for_the_reason(tmp_path: Path) -> None:
    """SQLite says "unable to open database file" for missing rights and for too many open files alike."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        with suppress(OSError):
            while True:
                held.append(os.open(tmp_path, os.O_RDONLY))
        with pytest.raises(ServiceUnavailable, match="too many open files"):
            Database(tmp_path / "a", version=1, schema="", synchronous="OFF", on_damage=lambda _: None)
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_folder_where_a_file_is_needed_is_named(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as caught:
        tmp_path.read_bytes()
    reported = explained(caught.value)
    assert isinstance(reported, SettingsError)
    assert reported.message == f"{tmp_path} is a folder, expected a file"
