from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from amlctl.core.events import Warned
from amlctl.localfs.git import read_git_state


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def test_no_state_without_a_repository_or_a_commit(tmp_path: Path) -> None:
    assert read_git_state(tmp_path) is None
    git(tmp_path, "init", "-q", "-b", "main", ".")
    assert read_git_state(tmp_path) is None


def test_only_what_a_run_is_made_of_makes_it_dirty(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main", ".")
    (tmp_path / "a.py").write_text("1")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "data_blobs").mkdir()
    (tmp_path / "data_blobs/x").write_text("data")
    assert read_git_state(tmp_path) == {"commit": commit, "branch": "main", "dirty": False}
    (tmp_path / "new.py").write_text("untracked")
    assert read_git_state(tmp_path) == {"commit": commit, "branch": "main", "dirty": True}
    git(tmp_path, "checkout", "-q", "--detach")
    assert (read_git_state(tmp_path) or {})["branch"] is None


def test_variables_of_another_repository_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a hook, which Git starts with these."""
    for name in ("ours", "other"):
        git(tmp_path, "init", "-q", "-b", "main", name)
        (tmp_path / name / "a.py").write_text(name)
        git(tmp_path / name, "add", "a.py")
        git(tmp_path / name, "commit", "-q", "-m", name)
    commit = git(tmp_path / "ours", "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "no index"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("GIT_LITERAL_PATHSPECS", "1")
    assert read_git_state(tmp_path / "ours") == {"commit": commit, "branch": "main", "dirty": False}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_a_repository_of_another_user_is_a_warning_with_the_command_that_allows_it(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", ".")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    os.chown(tmp_path, 12345, -1)
    warnings: list[object] = []
    assert read_git_state(tmp_path, warnings.append) is None
    (warned,) = warnings
    assert isinstance(warned, Warned)
    assert warned.message.endswith(f"to allow it: git config --global --add safe.directory {tmp_path}")
