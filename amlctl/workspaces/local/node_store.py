"""The store as the folder that a node sees: on this machine it is the store itself.

A store without a folder (blobs) needs one on this disk that holds what a run reads, and takes what it writes;
this is the one place that would make it.
"""

from __future__ import annotations

from pathlib import Path

from amlctl.errors import SettingsError
from amlctl.stores.contract import Store


def node_store_folder(store: Store) -> Path:
    """Raises SettingsError where the store is no folder."""
    if not store.url.startswith("/"):
        raise SettingsError(
            f"the local workspace needs a folder as its store, and {store.url} is none",
            hint='set store = ".amlctl/store" in its section of .amlctl.toml',
        )
    return Path(store.url)
