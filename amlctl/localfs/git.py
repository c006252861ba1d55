"""What Git knows of a folder, whatever repository the caller's variables name; without `git` it knows nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple, Optional

from amlctl.core.events import EventSink, Warned, null_sink

TIMEOUT_S = 10.0
"""On a slow disk `git status` may take long; no command waits longer than this."""

_KEPT = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_EXEC_PATH")
"""Where the user's own settings and Git's programs are. All other `GIT_…` variables (GIT_DIR, GIT_WORK_TREE,
GIT_INDEX_FILE, GIT_CEILING_DIRECTORIES, …) are those of another command, such as the hook that started amlctl."""


REFUSED = "Git refuses to read a repository of another user, so runs record no commit"


class GitAnswer(NamedTuple):
    code: int
    output: str
    errors: str = ""

    @property
    def allowing(self) -> str:
        """Where Git refuses a repository that belongs to another user: the command that it names to allow it."""
        return next((line.strip() for line in self.errors.splitlines() if "--add safe.directory" in line), "")


def ask_git(folder: Path, *arguments: str) -> Optional[GitAnswer]:
    """None without git, or where it takes too long."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT}
    try:
        done = subprocess.run(
            # A file system monitor is a program that the repository names.
            ["git", "-c", "core.fsmonitor=false", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_S,
            env={**variables, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return GitAnswer(done.returncode, os.fsdecode(done.stdout).rstrip("\n"), os.fsdecode(done.stderr))


def repository_top(folder: Path) -> Optional[Path]:
    """The top of the repository that `folder` (absolute, without links) lies in."""
    return next((one for one in (folder, *folder.parents) if git_folder(one) is not None), None)


def git_folder(top: Path) -> Optional[Path]:
    """What `.git` of a repository's top is, or names: in worktrees and submodules it is a file."""
    place = top / ".git"
    try:
        if place.is_file():
            if place.stat().st_size > _POINTER_BYTES:
                return None
            kind, _, named = place.read_text(encoding="utf-8", errors="surrogateescape").partition(":")
            if kind != "gitdir":
                return None
            place = top / named.strip()
        return place if os.path.lexists(place / "HEAD") else None
    except OSError:
        return None


def exclude_file(top: Path) -> Optional[Path]:
    """`info/exclude` of the repository; worktrees share that of the main one."""
    folder = git_folder(top)
    if folder is None:
        return None
    try:
        shared = (folder / "commondir").read_text(encoding="utf-8", errors="surrogateescape").strip()
    except OSError:
        shared = ""
    return folder / shared / "info" / "exclude"


def user_exclude_file(folder: Path) -> Optional[Path]:
    """`core.excludesFile`, as the repository of `folder` or the user sets it; else Git's default place."""
    answer = ask_git(folder, "config", "--type=path", "--get", "core.excludesFile")
    if answer is not None and answer.code == 0:
        return folder / answer.output if answer.output else None
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return Path(home) / "git" / "ignore"


_POINTER_BYTES = 64 << 10


def read_git_state(root: Path, sink: EventSink = null_sink) -> Optional[dict[str, Any]]:
    """`{"commit", "branch", "dirty"}`; None without git, repository or commit, and with a warning if Git refuses.

    `dirty` is about what a run is made of, so data and outputs do not count; None if git took too long.
    """
    head = ask_git(root, "rev-parse", "--verify", "HEAD")
    if head is None or head.code != 0:
        if head is not None and head.allowing:
            sink(Warned(f"{REFUSED}; to allow it: {head.allowing}"))
        return None
    # Paths that git status is not asked about are not walked: data_blobs may hold a million files.
    status = _git(root, "status", "--porcelain", "--", ".", ":(exclude)data_blobs", ":(exclude)outputs")
    branch = _git(root, "rev-parse", "--abbrev-ref", "HEAD")
    return {
        "commit": head.output.strip(),
        "branch": None if branch in (None, "HEAD") else branch,
        "dirty": None if status is None else bool(status),
    }


def _git(root: Path, *arguments: str) -> Optional[str]:
    answer = ask_git(root, *arguments)
    return answer.output.strip() if answer is not None and answer.code == 0 else None
