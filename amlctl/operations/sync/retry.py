"""Why a sync is planned again on a new reading of the store."""

from __future__ import annotations

from collections.abc import Collection

from amlctl.errors import Conflict


class ContentsLost(Exception):
    """The store has lost some of what was about to be committed; `told` is for the user where planning again fails.

    `contents` are to be sent again in any case.
    """

    def __init__(self, contents: Collection[str], told: Conflict) -> None:
        super().__init__(told)
        self.contents = contents
        self.told = told


class HeadMoved(Exception):
    """Another machine swapped HEAD after it was read; `told` is shown if replanning fails as well."""

    def __init__(self, told: Conflict) -> None:
        super().__init__(told)
        self.told = told
