"""Delete several values of a store at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

from amlctl.stores.contract import Store, always


def delete_all(store: Store, keys: Collection[str], *, may_delete: Callable[[], None] = always) -> None:
    """In parallel. `may_delete` is asked before each; what it raises ends it."""

    def delete(key: str) -> None:
        may_delete()
        store.delete(key)

    if keys:
        with ThreadPoolExecutor(min(store.concurrency, len(keys))) as pool:
            list(pool.map(delete, keys))
