"""Exclusion by a file that one process can create."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from amlctl.localfs import claims
from amlctl.localfs.claims import claimed
from amlctl.localfs.process_identity import this_process


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
        "import os, sys\nfrom pathlib import Path\nfrom amlctl.localfs.claims import claimed\n"
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
    monkeypatch.setattr(claims, "_STALE_S", 0.1)
    claim = tmp_path / f"{claims._PREFIX}file"
    claim.write_text(text)
    with claimed(tmp_path / "file"):
        assert claim.read_text() != text
