"""Memory is bounded whatever the data: the real command, with block and pack sizes as they are."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.blob_service import ACCOUNT, running_blob_service

MOST_BYTES = 200_000_000
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def url() -> Iterator[str]:
    with running_blob_service() as port:
        yield f"http://127.0.0.1:{port}/{ACCOUNT}/memory"


_COMMAND = """
import atexit, pathlib
from amlctl.cli.app import main
atexit.register(lambda: print(pathlib.Path("/proc/self/status").read_text()))
main()
"""
"""What `getrusage` tells of a child begins with the memory of its parent."""


def _peak_bytes(root: Path, *arguments: str) -> int:
    """Of the command, which has to succeed."""
    (root / "data_blobs").mkdir(parents=True, exist_ok=True)
    (root / ".amlctl.toml").write_text("")
    variables = {**os.environ, "AZURE_STORAGE_KEY": "eA=="}
    command = [sys.executable, "-c", _COMMAND, "--quiet", *arguments]
    done = subprocess.run(command, cwd=root, env=variables, stdout=subprocess.PIPE, text=True, check=True)
    found = re.search(r"VmHWM:\s*(\d+) kB", done.stdout)
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.parametrize("layout", ["auto", "mirror"])
def test_many_large_files_beside_small_ones(tmp_path: Path, url: str, layout: str) -> None:
    rng = random.Random(1)
    one, other = tmp_path / "one", tmp_path / "other"
    folder = one / "data_blobs/x"
    folder.mkdir(parents=True)
    large = rng.randbytes(16 << 20)
    for number in range(16):
        (folder / f"large{number}").write_bytes(large[number:] + large[:number])
    for number in range(1500 if layout == "auto" else 100):  # they go into packs, or each needs a request
        (folder / f"small{number}").write_bytes(rng.randbytes(30_000))
    store = ("x", "--store", url, "--jobs", "16")
    assert _peak_bytes(one, "sync", *store, "--layout", layout) < MOST_BYTES
    assert _peak_bytes(other, "sync", "--pull", *store) < MOST_BYTES
    for path in folder.glob("large*"):
        path.write_bytes(rng.randbytes(1000) + path.read_bytes())
    assert _peak_bytes(one, "sync", *store, "--layout", layout) < MOST_BYTES


def test_packs_of_files_that_fill_no_part_to_its_end(tmp_path: Path, url: str) -> None:
    """Two packs are in memory: what each part has over must be little."""
    rng = random.Random(1)
    folder = tmp_path / "data_blobs/x"
    folder.mkdir(parents=True)
    for number in range(250):
        (folder / f"some{number}").write_bytes(rng.randbytes(1_000_000))
    assert _peak_bytes(tmp_path, "sync", "x", "--store", url) < MOST_BYTES


def test_a_folder_gets_one_pack_at_a_time(tmp_path: Path) -> None:
    """Two packs of 64 MiB, and no need to hold both of them."""
    rng = random.Random(1)
    folder = tmp_path / "data_blobs/x"
    folder.mkdir(parents=True)
    for number in range(5000):
        (folder / f"small{number}").write_bytes(rng.randbytes(26_000))
    assert _peak_bytes(tmp_path, "sync", "x", "--store", "store") < 125_000_000
    assert len([*(tmp_path / "store/packs").glob("*/*.zip")]) == 2
