"""Which files are left out: of a code snapshot by Git's rules from the project's root downwards, of a dataset by
`.amlctlignore` from `data_blobs/` downwards and by the settings, whose patterns count as if they stood there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from amlctl.localfs.ignore import RulesBelow
from amlctl.localfs.project import Project

CODE_IGNORE_FILES = (".amlctlignore", ".gitignore")
"""The first has the last word."""
DATASET_IGNORE_FILES = (".amlctlignore",)
"""Data is usually git-ignored, so .gitignore does not count."""


def code_rules(project: Project) -> RulesBelow:
    return RulesBelow(project.root, CODE_IGNORE_FILES, project.pipeline_dir)


def dataset_rules(project: Project, dataset: str, ignore: Sequence[str]) -> RulesBelow:
    """`dataset` may be empty: the rules of `data_blobs/` itself."""
    top = project.dataset_path(dataset) if dataset else project.data_blobs_dir
    return RulesBelow(project.data_blobs_dir, DATASET_IGNORE_FILES, top, ignore)


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
