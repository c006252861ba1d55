"""The project's Git state, for the record of a run. Asks `git`; without it, or without a repository, there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from amlctl.localfs.git import ask_git


def read_git_state(root: Path) -> Optional[dict[str, Any]]:
    """`{"commit", "branch", "dirty"}`; None without git, repository or commit.

    `dirty` is about what a run is made of, so data and outputs do not count; None if git took too long.
    """
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None
    # Paths that git status is not asked about are not walked: data_blobs may hold a million files.
    status = _git(root, "status", "--porcelain", "--", ".", ":(exclude)data_blobs", ":(exclude)outputs")
    branch = _git(root, "rev-parse", "--abbrev-ref", "HEAD")
    return {
        "commit": commit,
        "branch": None if branch in (None, "HEAD") else branch,
        "dirty": None if status is None else bool(status),
    }


def _git(root: Path, *arguments: str) -> Optional[str]:
    answer = ask_git(root, *arguments)
    return answer.output.strip() if answer is not None and answer.code == 0 else None
