"""Which files of `pipeline/` are not part of a code snapshot: Git's rules from the project's root downwards."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from amlctl.localfs.ignore import FolderRules, IgnoreRules

CODE_IGNORE_FILES = (".amlctlignore", ".gitignore")
"""The first has the last word."""


class CodeRules(IgnoreRules):
    """Rules for a walk that starts at `top`, a folder below `root`, and knows only paths relative to `top`."""

    def __init__(self, root: Path, top: Path) -> None:
        super().__init__(root, CODE_IGNORE_FILES)
        self._top = top.relative_to(root).as_posix()
        above = ""
        for part in top.relative_to(root).parts:
            super().enter(above, os.listdir(root / above))
            above = f"{above}/{part}" if above else part

    def enter(self, folder: str, names: Collection[str]) -> FolderRules:
        return super().enter(f"{self._top}/{folder}" if folder else self._top, names)
