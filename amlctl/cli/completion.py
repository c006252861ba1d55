"""What a shell offers at Tab for RUN, SCRIPT and datasets: from this disk only, and without settings or store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from amlctl.errors import AmlctlError
from amlctl.localfs.project import Project, find_project


def complete_run(incomplete: str) -> list[str]:
    """Runs that were seen from here."""
    project = _project()
    runs = [] if project is None else _folders(project.state_dir / "runs")
    return [run for run in (*runs, "@last") if run.startswith(incomplete)]


Run = Annotated[
    str,
    typer.Argument(metavar="RUN", autocompletion=complete_run, help="A run id, the beginning of one, @last or @2."),
]
"""RUN as an argument of a command."""


def complete_script(incomplete: str) -> list[str]:
    """Scripts by name, by path below `pipeline/` once a folder is typed."""
    project = _project()
    if project is None:
        return []
    from amlctl.localfs.code_rules import code_rules
    from amlctl.localfs.script_lookup import walk_files

    paths = [
        path
        for path in walk_files(project.pipeline_dir, code_rules(project))
        if path.suffix == ".py" and str(path).isprintable()
    ]
    base = project.root if incomplete.startswith(f"{project.pipeline_dir.name}/") else project.pipeline_dir
    shown = {path.relative_to(base).as_posix() if "/" in incomplete else path.name for path in paths}
    return sorted(name for name in shown if name.startswith(incomplete))


def complete_dataset(incomplete: str) -> list[str]:
    """Folders below `data_blobs/`, with or without that name, and those in them: a shell ends the word after one."""
    project = _project()
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
    return found


def _project() -> Project | None:
    try:
        return find_project(Path.cwd())
    except (AmlctlError, OSError):
        return None


def _folders(folder: Path) -> list[str]:
    return sorted(_names(folder))


def _is_offered(entry: os.DirEntry[str]) -> bool:
    """What a terminal cannot show as it is, no shell should be made to type."""
    return entry.is_dir() and not entry.name.startswith(".") and entry.name.isprintable()


def _names(folder: Path) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if _is_offered(entry))
    except OSError:
        return
