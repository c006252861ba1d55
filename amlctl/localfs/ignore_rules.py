"""Which files are left out: of a code snapshot by `code_rules.CodeRules`, of a dataset by `.amlctlignore` from
`data_blobs/` downwards and by the settings, whose patterns count as if they stood there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from amlctl.localfs.ignore import RulesBelow
from amlctl.localfs.project import Project

if TYPE_CHECKING:
    from amlctl.localfs.code_rules import CodeRules

DATASET_IGNORE_FILES = (".amlctlignore",)
"""Data is usually git-ignored, so .gitignore does not count."""


def code_rules(project: Project) -> CodeRules:
    """Raises RightsError."""
    from amlctl.localfs.code_rules import CodeRules  # a sync needs neither Git nor names of keys

    return CodeRules(project.root, project.pipeline_dir)


def job_code_rules(project: Project, code_dir: Path) -> CodeRules:
    """For the code of a job file: what a project keeps beside its code stays out as well. Raises RightsError."""
    from amlctl.localfs.code_rules import CodeRules

    base = project.root if code_dir.is_relative_to(project.root) else code_dir
    apart = [code_dir / "outputs", project.data_blobs_dir, project.outputs_dir, project.state_dir]
    patterns = [
        "/" + re.sub(r"([*?\[\\])", r"\\\1", folder.relative_to(base).as_posix()) + "/"
        for folder in apart
        if folder.is_relative_to(code_dir)
    ]
    return CodeRules(base, code_dir, patterns)


def dataset_rules(project: Project, dataset: str, ignore: Sequence[str]) -> RulesBelow:
    """`dataset` may be empty: the rules of `data_blobs/` itself."""
    top = project.dataset_path(dataset) if dataset else project.data_blobs_dir
    return RulesBelow(project.dataset_base(dataset), DATASET_IGNORE_FILES, top, ignore)


def ignore_files_above(project: Project, datasets: Iterable[str]) -> dict[str, str]:
    """The text of each ignore file above the datasets, by its path below `data_blobs/`: a node does not have them.

    Bytes that are no UTF-8 are surrogate escapes. Raises OSError.
    """
    found: dict[str, str] = {}
    for dataset in datasets:
        folder = project.dataset_path(dataset)
        while folder != project.data_blobs_dir:
            folder = folder.parent
            for path in (folder / name for name in DATASET_IGNORE_FILES):
                if path.is_file():
                    text = path.read_bytes().decode("utf-8", "surrogateescape")
                    found[path.relative_to(project.data_blobs_dir).as_posix()] = text
    return found
