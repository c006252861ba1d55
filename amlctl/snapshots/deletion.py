"""Delete several values of a store at a time."""

from __future__ import annotations

from collections.abc import Collection
from typing import Optional

from amlctl.parallel import for_each
from amlctl.stores.contract import Guard, Store


def delete_all(store: Store, keys: Collection[str], *, guard: Optional[Guard] = None) -> None:
    """In parallel, each only while the guard holds; what that raises ends it."""

    def delete(key: str) -> None:
        if guard is not None:
            guard.check()
        store.delete(key, guard=guard)

    for_each(delete, keys, store.concurrency)
