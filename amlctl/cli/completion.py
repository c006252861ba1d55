"""What a shell completes for RUN, SCRIPT and datasets, from this disk only; and the arguments that share it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amlctl.errors import AmlctlError

if TYPE_CHECKING:
    from amlctl.localfs.project import Project


def starting_with(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def complete_run(incomplete: str) -> list[str]:
    """Runs that this machine has seen, of others too."""
    project = current_project()
    if project is None:
        return []
    from amlctl.core.run_id import parent_of
    from amlctl.runs.known import shared_folder

    seen = shared_folder(project.state_dir)
    runs = [*_folders(project.state_dir / "runs"), *(path.stem for path in sorted(seen.glob("*.json")))]
    parent = parent_of(f"{incomplete}0")[0]  # of a sweep's run, as far as its number is typed
    if parent in runs:
        runs += [run for run in _children(project, parent) if run not in runs]
    return [run for run in (*runs, "@last") if run.startswith(incomplete)]


def _children(project: Project, parent: str) -> list[str]:
    """Runs of a sweep, of which this machine may have seen none."""
    import json

    try:
        record = json.loads((project.state_dir / "runs" / parent / "record.json").read_bytes())
        return [str(one["run"]) for one in record["children"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN", autocompletion=complete_run, help="Run id, unique prefix, @last or @2 (second to last)"
    ),
]
"""RUN as the argument of a command."""

LastRun = Annotated[
    str,
    typer.Argument(metavar="RUN", autocompletion=complete_run, help="Run id, unique prefix, or @2 (second to last)"),
]
"""RUN of a command that takes the newest run without one; its default is `LAST`."""

LAST = "@last"


def complete_script(incomplete: str) -> list[str]:
    return files_of_code(incomplete, (".py",))


def files_of_code(incomplete: str, suffixes: Collection[str]) -> list[str]:
    """Scripts, or configs, by name, by path below `pipeline/` once a folder is typed."""
    project = current_project()
    if project is None:
        return []
    from amlctl.localfs.code_rules import code_rules
    from amlctl.localfs.script_lookup import walk_files

    paths = [
        path
        for path in walk_files(project.pipeline_dir, code_rules(project))
        if path.suffix in suffixes and str(path).isprintable()
    ]
    base = project.root if incomplete.startswith(f"{project.pipeline_dir.name}/") else project.pipeline_dir
    shown = {path.relative_to(base).as_posix() if "/" in incomplete else path.name for path in paths}
    return sorted(name for name in shown if name.startswith(incomplete))


def complete_dataset(incomplete: str) -> list[str]:
    """Folders and files below `data_blobs/`, with or without that name, and those in them, since a shell ends the word
    after one; then datasets that the store had when it was listed last."""
    project = current_project()
    if project is None:
        return []
    above = incomplete.rpartition("/")[0]
    prefix = f"{above}/" if above else ""
    base = project.root if incomplete.startswith(f"{project.data_blobs_dir.name}/") else project.data_blobs_dir
    found = []
    for name in _folders(base / above):
        if f"{prefix}{name}".startswith(incomplete):
            found.append(f"{prefix}{name}")
            found += [f"{prefix}{name}/{below}" for below in _folders(base / above / name)]
    files = [f"{prefix}{name}" for name in _files(base / above) if f"{prefix}{name}".startswith(incomplete)]
    found += files if len(files) <= _MOST_FILES else []
    from amlctl.localfs.known_stores import remembered_datasets

    shown = f"{project.data_blobs_dir.name}/" if base == project.root else ""
    stored = (f"{shown}{name}" for name in remembered_datasets(project.state_dir) if name.isprintable())
    return list(dict.fromkeys([*found, *(name for name in stored if name.startswith(incomplete))]))


Paths = typer.Argument(
    metavar="PATH...",
    autocompletion=complete_dataset,
    help="Files or folders under data_blobs/, or names of datasets",
)
"""Datasets as the argument of a command."""


def current_project() -> Project | None:
    from amlctl.localfs.project import find_project

    try:
        return find_project(Path.cwd())
    except (AmlctlError, OSError):
        return None


_MOST_FILES = 50
"""Files that are offered as datasets; a folder of more is a dataset itself."""


def _files(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            names = [one.name for one in entries if one.name[0] != "." and one.is_file()]
    except OSError:
        return []
    return sorted(name for name in names if name.isprintable())


def _folders(folder: Path) -> list[str]:
    """Names of the folders in it, without those that a terminal cannot show as they are."""
    try:
        return sorted(
            one.name for one in folder.iterdir() if one.name[0] != "." and one.name.isprintable() and one.is_dir()
        )
    except OSError:
        return []
