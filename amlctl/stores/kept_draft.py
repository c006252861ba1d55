"""A draft for a store that wants the key first: its parts are kept in memory until then."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amlctl.stores.contract import Buffer, Store


class KeptDraft:
    """Satisfies `Draft`."""

    keeps_parts = True

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parts: list[Buffer] = []

    def append(self, part: Buffer) -> None:
        self._parts.append(part)

    def finish(self, key: str, *, replace: bool = False) -> bool:
        return self._store.put(key, self._parts, replace=replace)

    def drop(self) -> None:
        """Nothing has been written."""
