"""Exclusion by a file that one process can create."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from amlctl.core.events import Event, Note
from amlctl.localfs import locks
from amlctl.localfs.locks import claimed, exclusive, is_held
from amlctl.localfs.machine import this_process


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    inside, most = [0], [0]

    def enter() -> None:
        for _ in range(20):
            with claimed(tmp_path / "file"):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert not list(tmp_path.iterdir())


def test_the_claim_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom amlctl.localfs.locks import claimed\n"
        "with claimed(Path(sys.argv[1])): os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "file")], check=False)
    assert done.returncode == 9
    assert len(list(tmp_path.iterdir())) == 1
    with claimed(tmp_path / "file"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["other001 1 2", "", "not a claim"])
def test_the_claim_of_an_unknown_holder_ages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """By the clock of the one that waits: those of two machines need not agree."""
    assert this_process().machine != "other001"
    monkeypatch.setattr(locks, "_STALE_S", 0.1)
    claim = tmp_path / f"{locks._PREFIX}file"
    claim.write_text(text)
    with claimed(tmp_path / "file"):
        assert claim.read_text() != text


def test_the_claim_of_a_live_process_does_not_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_STALE_S", 0.1)
    entered = threading.Event()

    def enter() -> None:
        with claimed(tmp_path / "file"):
            entered.set()

    with claimed(tmp_path / "file"):
        other = threading.Thread(target=enter)
        other.start()
        assert not entered.wait(0.5)
    assert entered.wait(60)
    other.join()
    assert not list(tmp_path.iterdir())


def test_a_holder_keeps_its_claim_fresh_and_leaves_that_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_STALE_S", 0.1)
    claim = tmp_path / f"{locks._PREFIX}file"
    with claimed(tmp_path / "file"):
        before = claim.read_bytes()
        deadline = threading.Event()
        while claim.read_bytes() == before:
            assert not deadline.wait(0.01)
        claim.write_text("other001 1 2 x ")  # as after a holder that slept for long
    assert claim.read_text() == "other001 1 2 x "


def test_a_long_name_can_be_claimed(tmp_path: Path) -> None:
    with claimed(tmp_path / ("n" * 255)):
        assert len(list(tmp_path.iterdir())) == 1


def test_a_lock_that_smb_refuses_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a lock of another holder is EACCES, and so is reading its file."""
    flock = fcntl.flock

    def flock_of_smb(file: Any, operation: int) -> None:
        if operation & fcntl.LOCK_NB:
            raise PermissionError(errno.EACCES, "Permission denied")
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock_of_smb)
    events: list[Event] = []
    with exclusive(tmp_path / "lock", "amlctl sync", events.append):
        assert is_held(tmp_path / "lock")
    assert events == [Note("amlctl sync waits for another amlctl")]
