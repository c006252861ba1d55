"""Code snapshots in a container: what the newest run had too is copied there, and does not travel again."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from amlctl.localfs.ignore import IgnoreRules
from amlctl.stores.azure_blob.store import open_blob_store
from amlctl.transfer.code import CodeFiles, code_prefix, collect_code, send_code
from tests.support.azurite import Azurite
from tests.support.trees import write_tree


def _code(root: Path) -> CodeFiles:
    return collect_code(root / "pipeline", IgnoreRules(root, ()))


@pytest.mark.parametrize("is_earlier_there", [True, False])
def test_one_changed_file_travels_alone(azurite: Azurite, tmp_path: Path, is_earlier_there: bool) -> None:
    store = open_blob_store(f"{azurite.url}/{azurite.new_container()}", {"AZURE_STORAGE_KEY": azurite.key})
    rng = random.Random(1)
    tree = {f"d{n % 5}/f{n}.py": rng.randbytes(20_000) for n in range(50)}
    write_tree(tmp_path / "pipeline", tree)
    earlier = send_code(store, _code(tmp_path)).id if is_earlier_there else "0" * 32
    tree["d0/f0.py"] = rng.randbytes(20_000)
    write_tree(tmp_path / "pipeline", tree)
    before = store.traffic.sent_bytes
    sent = send_code(store, _code(tmp_path), earlier=lambda: earlier)
    travelled = store.traffic.sent_bytes - before
    if is_earlier_there:
        assert sent.sent_bytes == 20_000
        assert travelled < 60_000  # the index goes, too
    else:
        assert travelled > 50 * 20_000
    for path, data in tree.items():
        assert store.get(f"{code_prefix(sent.id)}pipeline/{path}") == data
    store.close()
