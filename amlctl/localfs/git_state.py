"""The project's Git state, for the record of a run. Asks `git`; without it, or without a repository, there is none."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, Optional

TIMEOUT_S = 10.0
"""On a slow disk `git status` may take long; a submit waits no longer than this and records no dirty flag."""


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
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else None
