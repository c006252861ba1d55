"""Ordinary folders are read in a shorter way, which must find what the careful one finds."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from amlctl.localfs.ignore import IgnoreRules
from amlctl.localfs.scan import Scan, scan

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
        for file in range(rng.choice([0, 1, 3, 70])):
            (folder / f"f{file}{rng.choice(['', '.tmp', '.jpg'])}").write_bytes(b"x" * (file % 5))
    for name in NASTY:
        (rng.choice(folders) / name).write_bytes(b"nasty")
    for text in LISTS:
        (rng.choice(folders) / ".amlctlignore").write_text(text)
    (rng.choice(folders) / "to a folder").symlink_to(rng.choice(folders))
    (rng.choice(folders) / "to nothing").symlink_to("nowhere")
    os.mkfifo(rng.choice(folders) / "pipe")


def _reported(found: Scan) -> object:
    return found.folders, sorted(found.warnings), sorted(found.unreadable)


@pytest.fixture(params=[1, 2, 3])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    _tree(tmp_path / "tree", request.param)
    return tmp_path / "tree"


@pytest.mark.parametrize("patterns", [(), ("*.tmp", "d1*/"), ("a*b/**/f1",)])
def test_both_ways_find_the_same(root: Path, patterns: tuple[str, ...]) -> None:
    careful = (*patterns, "matches/nothing")  # a name alone does not tell whether this rule holds
    shorter = scan(root, IgnoreRules(root, [".amlctlignore"], patterns))
    assert _reported(shorter) == _reported(scan(root, IgnoreRules(root, [".amlctlignore"], careful)))


def test_an_ignored_link_that_leads_nowhere_is_not_reported(tmp_path: Path) -> None:
    for name in ("old", "other"):
        (tmp_path / name).symlink_to("nowhere")
    (tmp_path / "round").symlink_to("round")
    found = scan(tmp_path, IgnoreRules(tmp_path, [".amlctlignore"], ["old", "round"]))
    assert found.warnings == ["other: the link leads nowhere; left out"]
