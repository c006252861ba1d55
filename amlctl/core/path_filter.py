"""Which paths a user means by globs."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Callable


def path_filter(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a relative path matches one of the globs; without patterns every path does.

    `*` also spans folders (`*.png` is every picture), `**/` may be empty, and a folder means all below it.
    """
    if not patterns:
        return lambda path: True
    wanted = [pattern.removeprefix("./").rstrip("/") for pattern in patterns]

    def matches(path: str) -> bool:
        return any(
            fnmatchcase(path, pattern)
            or fnmatchcase(path, pattern.replace("**/", ""))
            or fnmatchcase(path, f"{pattern}/*")
            for pattern in wanted
        )

    return matches
