"""Code snapshots in a container: what the newest run had too is copied there, and does not travel again."""

from __future__ import annotations

import io
import random
from pathlib import Path
from zipfile import ZipFile

import pytest

from amlctl.core.job import RUNTIME_ARCHIVE
from amlctl.core.store_keys import code_index_key, code_prefix
from amlctl.localfs.ignore import IgnoreRules
from amlctl.runs.code import CodeFiles, collect_code, runtime_archive, send_code
from amlctl.stores.azure_blob.store import AzureBlobStore
from tests.support.azurite import Azurite
from tests.support.fault_proxy import LoseAnswer, Seen, fault_proxy
from tests.support.trees import write_tree


def _code(root: Path) -> CodeFiles:
    return collect_code(root / "pipeline", IgnoreRules(root, ()))


@pytest.mark.parametrize("is_earlier_there", [True, False])
def test_one_changed_file_travels_alone(azurite: Azurite, tmp_path: Path, is_earlier_there: bool) -> None:
    store = AzureBlobStore(f"{azurite.url}/{azurite.new_container()}", {"AZURE_STORAGE_KEY": azurite.key})
    rng = random.Random(1)
    tree = {f"d{n % 5}/f{n}.py": rng.randbytes(20_000) for n in range(50)}
    write_tree(tmp_path / "pipeline", tree)
    earlier = _code(tmp_path)
    if is_earlier_there:
        send_code(store, earlier)
    tree["d0/f0.py"] = rng.randbytes(20_000)
    write_tree(tmp_path / "pipeline", tree)
    before, requests = store.traffic.sent_bytes, store.traffic.requests
    code = _code(tmp_path)
    sent = send_code(store, code, earlier=lambda: earlier.id)
    travelled = store.traffic.sent_bytes - before
    if is_earlier_there:
        assert sent == 20_000
        assert travelled < 20_000 + 60 * len(_code(tmp_path).entries)  # the index goes, too
        assert store.traffic.requests - requests <= len(tree) + 8  # the runtime costs one of them
    else:
        assert travelled > 50 * 20_000
    for path, data in tree.items():
        assert store.get(f"{code_prefix(code.id)}pipeline/{path}") == data
    store.close()


def test_what_a_copy_does_not_need_does_not_travel_thousands_of_times(azurite: Azurite, tmp_path: Path) -> None:
    write_tree(tmp_path / "pipeline", {"a.py": b"print(1)", "b.py": b"print(2)"})
    with fault_proxy(azurite.url) as proxy:
        container = azurite.new_container()
        store = AzureBlobStore(f"{proxy.url}/{container}", {"AZURE_STORAGE_KEY": azurite.key})
        earlier = _code(tmp_path)
        send_code(store, earlier)
        store.close()
        store = AzureBlobStore(f"{proxy.url}/{container}", {"AZURE_STORAGE_SAS_TOKEN": azurite.sas(container)})
        (tmp_path / "pipeline/a.py").write_bytes(b"print(3)")
        send_code(store, _code(tmp_path), earlier=lambda: earlier.id)
        store.close()
    copies = [seen for seen in proxy.seen if "x-ms-copy-source" in seen.headers]
    assert copies
    for seen in copies:
        needed = {"host", "x-ms-copy-source", "x-ms-version", "content-length"}
        assert {name.lower() for name in seen.headers} == needed


def test_a_copy_whose_answer_was_lost_is_made_again_and_nothing_is_sent(azurite: Azurite, tmp_path: Path) -> None:
    write_tree(tmp_path / "pipeline", {"a.py": b"print(1)", "b.py": bytes(10_000)})
    with fault_proxy(azurite.url) as proxy:
        variables = {"AZURE_STORAGE_KEY": azurite.key}
        url = f"{proxy.url}/{azurite.new_container()}"
        store = AzureBlobStore(url, variables, sleep=lambda _: None)
        earlier = _code(tmp_path)
        send_code(store, earlier)
        (tmp_path / "pipeline/a.py").write_bytes(b"print(3)")
        lost: list[Seen] = []

        def act(seen: Seen) -> LoseAnswer | None:
            if "x-ms-copy-source" not in seen.headers or "pipeline/b.py" not in seen.path or lost:
                return None
            lost.append(seen)
            return LoseAnswer()

        proxy.act = act
        assert send_code(store, _code(tmp_path), earlier=lambda: earlier.id) == len(b"print(3)")
        store.close()
    assert lost
    sent = [seen for seen in proxy.seen if "pipeline/b.py" in seen.path and seen.verb == "PUT"]
    assert [seen.size_bytes for seen in sent] == [10_000, 0, 0]


def test_the_runtime_is_one_file_of_the_same_bytes_everywhere(tmp_path: Path) -> None:
    write_tree(tmp_path / "pipeline", {"a.py": b"print(1)"})
    assert [entry.path for entry in _code(tmp_path).entries] == [RUNTIME_ARCHIVE, "pipeline/a.py"]
    first = runtime_archive()
    runtime_archive.cache_clear()
    assert runtime_archive() == first
    with ZipFile(io.BytesIO(first)) as archive:
        names = [one.filename for one in archive.infolist()]
        assert {(one.compress_type, one.date_time) for one in archive.infolist()} == {(0, (1980, 1, 1, 0, 0, 0))}
    assert names == sorted(names)
    assert {"amlctl/__init__.py", "amlctl/runtime/__main__.py"} <= set(names)
    assert not any(name.startswith(("amlctl/cli", "amlctl/operations", "amlctl/workspaces")) for name in names)


def test_unchanged_code_costs_two_requests_and_what_is_missing_is_sent(azurite: Azurite, tmp_path: Path) -> None:
    store = AzureBlobStore(f"{azurite.url}/{azurite.new_container()}", {"AZURE_STORAGE_KEY": azurite.key})
    write_tree(tmp_path / "pipeline", {"a.py": b"print(1)"})
    code = _code(tmp_path)
    send_code(store, code)
    before = store.traffic.requests
    assert send_code(store, code) == 0
    assert store.traffic.requests - before == 2
    store.delete(f"{code_prefix(code.id)}pipeline/a.py")
    assert send_code(store, code) == len(b"print(1)")
    store.delete(code_index_key(code.id))
    assert send_code(store, code) == 0
    assert store.info(code_index_key(code.id)) is not None
    store.close()
