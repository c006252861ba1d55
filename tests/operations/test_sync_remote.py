"""A store behind a network: what was seen of it once is not asked for again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from amlctl.operations.sync import SyncResult, sync
from amlctl.stores.azure_blob.store import AzureBlobStore
from amlctl.stores.cached import CachedStore
from amlctl.stores.directory import DirectoryStore
from amlctl.wiring import App, open_app, without_copies
from tests.support.azurite import Azurite
from tests.support.clones import DATASET, OPTIONS, random_tree
from tests.support.trees import write_tree


@pytest.fixture
def app(tmp_path: Path, azurite: Azurite) -> Iterator[App]:
    url = f"{azurite.url}/{azurite.new_container()}"
    (tmp_path / ".amlctl.toml").write_text(f'[workspaces.local]\ncompute = "local"\nstore = "{url}"\n')
    app = open_app(tmp_path, {"AZURE_STORAGE_KEY": azurite.key})
    yield app
    store = without_copies(app.store)
    assert isinstance(store, AzureBlobStore)
    store.close()


def _sync(app: App) -> SyncResult:
    return sync(app.project, app.store, DATASET, OPTIONS, lambda event: None)


def test_a_small_change_reads_no_manifest_and_asks_for_no_pack(app: App) -> None:
    root = app.project.dataset_path(DATASET)
    write_tree(root, random_tree(1))
    _sync(app)
    (root / "d1/f1").write_bytes(b"changed")
    assert _sync(app).requests == 4  # HEAD, the pack, the manifest, HEAD
    assert (app.project.state_dir / ".gitignore").exists()


def test_who_checks_a_store_sees_no_copies(app: App) -> None:
    assert isinstance(app.store, CachedStore)
    assert without_copies(app.store) is app.store.store


def test_a_folder_needs_no_copies(tmp_path: Path) -> None:
    (tmp_path / ".amlctl.toml").write_text("")
    assert isinstance(open_app(tmp_path, {}).store, DirectoryStore)
