"""The code of a run in tracebacks: by its paths here."""

from __future__ import annotations

import os
from pathlib import Path

from amlctl.core.script_errors import CodePaths
from amlctl.localfs.project import Project


def code_paths(project: Project, run: str) -> CodePaths:
    """Relative to the current folder, so that a terminal or an editor opens them."""

    def find(path: str, below: str) -> str:
        here = project.pipeline_dir / below
        is_of_run = f"/{run}/" in path or not os.path.exists(path)
        return os.path.relpath(here, Path.cwd()) if is_of_run and here.is_file() else ""

    return CodePaths(find)
