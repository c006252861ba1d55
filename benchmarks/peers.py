"""The programs that amlctl is measured against. None stands for one that is not installed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from measure import Command, output_of
from sandbox import Sandbox, remover


def git_status(sandbox: Sandbox, tree: Path) -> Command | None:
    """`git status` of a work tree whose files are all committed. The repository lies beside the tree."""
    if shutil.which("git") is None:
        return None
    environment = {
        **sandbox.environment,
        "GIT_DIR": str(sandbox.folder / f"{tree.name}.git"),
        "GIT_WORK_TREE": str(tree),
    }

    def git(*arguments: str) -> None:
        output_of(["git", *arguments], tree, environment)

    git("init", "--quiet")
    git("config", "gc.auto", "0")
    git("add", ".")
    git("-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost", "commit", "--quiet", "-m", "all")
    return Command("git status", "git status", ["git", "status"], tree, environment)


def find_by_size(sandbox: Sandbox, tree: Path) -> Command | None:
    if shutil.which("find") is None:
        return None
    return Command("find", "find DATA -size +1000", ["find", str(tree), "-size", "+1000"], tree, sandbox.environment)


def copy(sandbox: Sandbox, tree: Path, target: Path) -> Command:
    return Command(
        "cp", "cp -r DATA TARGET", ["cp", "-r", str(tree), str(target)], tree, sandbox.environment, remover(target)
    )


def tar(sandbox: Sandbox, tree: Path, target: Path) -> Command | None:
    if shutil.which("tar") is None:
        return None
    argv = ["tar", "cf", str(target), "-C", str(tree.parent), tree.name]
    return Command("tar", "tar cf TARGET DATA", argv, tree, sandbox.environment, remover(target))


def restic_backup(sandbox: Sandbox, tree: Path, repository: Path) -> Command | None:
    """A first backup into a new repository on this disk."""
    if shutil.which("restic") is None:
        return None
    environment = {
        **sandbox.environment,
        "RESTIC_REPOSITORY": str(repository),
        "RESTIC_PASSWORD": "benchmark",
        "RESTIC_CACHE_DIR": str(sandbox.folder / "restic-cache"),
    }
    remove = remover(repository, sandbox.folder / "restic-cache")
    return Command(
        "restic",
        "restic backup DATA",
        ["restic", "backup", "--quiet", str(tree)],
        tree,
        environment,
        _then(remove, lambda: output_of(["restic", "init", "--quiet"], tree, environment)),
    )


def _then(first: Callable[[], None], second: Callable[[], object]) -> Callable[[], None]:
    def both() -> None:
        first()
        second()

    return both
