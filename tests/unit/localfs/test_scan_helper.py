"""A scan with a second process finds what a scan alone finds, also when that process is killed."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from amlctl.localfs.ignore import IgnoreRules
from amlctl.localfs.scan import Scan, scan
from amlctl.localfs.scan_helper import ScanHelper

NASTY = ["a b", 'quo"te', "new\nline", "ü", "ü", b"\xff".decode("utf-8", "surrogateescape"), "x" * 255]
LISTS = ["*.tmp\n", "keep\n", "# nothing\n"]


def _tree(root: Path, seed: int) -> None:
    """Folders of very different sizes, some below others, with links, lists of what to ignore, sockets, empty ones."""
    rng = random.Random(seed)
    folders = [root]
    for number in range(60):
        folder = rng.choice(folders) / rng.choice([f"d{number}", f"{rng.choice(NASTY)[:200]}{number}"])
        folder.mkdir(parents=True, exist_ok=True)
        folders.append(folder)
        for file in range(rng.choice([0, 1, 3, 700])):
            (folder / f"f{file}{rng.choice(['', '.tmp', '.jpg'])}").write_bytes(b"x" * (file % 5))
    for name in NASTY:
        (rng.choice(folders) / name).write_bytes(b"nasty")
    for text in LISTS:
        (rng.choice(folders) / ".amlctlignore").write_text(text)
    (rng.choice(folders) / "to a folder").symlink_to(rng.choice(folders))
    (rng.choice(folders) / "to nothing").symlink_to("nowhere")
    os.mkfifo(rng.choice(folders) / "pipe")


def _reported(found: Scan) -> object:
    return found.folders, sorted(found.warnings), sorted(found.unreadable), found.ignored


@pytest.fixture(params=[1, 2, 3])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    _tree(tmp_path / "tree", request.param)
    return tmp_path / "tree"


@pytest.mark.parametrize("patterns", [(), ("*.tmp", "d1*/"), ("a*b/**/f1",)])
def test_it_finds_the_same(root: Path, patterns: tuple[str, ...]) -> None:
    rules = IgnoreRules(root, [".amlctlignore"], patterns)
    alone, together = scan(root, rules), scan(root, rules, is_large=True)
    assert _reported(together) == _reported(alone)
    assert together.digest() == alone.digest()


@pytest.mark.parametrize("after", [0, 1, 3])
def test_it_goes_on_without_a_helper_that_was_killed(root: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """The real process, killed when it has answered so often."""
    asked = 0
    ask: Callable[[ScanHelper, list[tuple[str, str]]], None] = ScanHelper.ask

    def ask_and_kill(helper: ScanHelper, pending: list[tuple[str, str]]) -> None:
        nonlocal asked
        if asked == after:
            for child in _children():
                os.kill(child, signal.SIGKILL)
        asked += 1
        ask(helper, pending)

    monkeypatch.setattr(ScanHelper, "ask", ask_and_kill)
    rules = IgnoreRules(root, [".amlctlignore"])
    together = scan(root, rules, is_large=True)
    assert asked > after
    assert _reported(together) == _reported(scan(root, rules))


def _children() -> list[int]:
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    return [int(one) for one in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
