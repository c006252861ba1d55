"""A store behind a network: what was seen of it once is not asked for again."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from threading import Condition, Event

import pytest
from azure.storage.blob import BlobClient

from amlctl.errors import Conflict, RightsError
from amlctl.operations.sync.sync import SyncResult, sync
from amlctl.stores.azure_blob.store import AzureBlobStore
from amlctl.stores.azure_blob.upload import Limits
from amlctl.stores.directory import DirectoryStore
from amlctl.stores.wrappers import CachedStore, without_copies
from amlctl.wiring import App, innermost, open_app
from tests.support.azurite import Azurite
from tests.support.clones import DATASET, OPTIONS, Clone, random_tree
from tests.support.fault_proxy import FaultProxy, Reply, Seen, fault_proxy
from tests.support.trees import read_tree, write_tree


@pytest.fixture
def app(tmp_path: Path, azurite: Azurite) -> Iterator[App]:
    url = f"{azurite.url}/{azurite.new_container()}"
    (tmp_path / ".amlctl.toml").write_text(f'[workspaces.local]\ncompute = "local"\nstore = "{url}"\n')
    app = open_app(tmp_path, {"AZURE_STORAGE_KEY": azurite.key})
    yield app
    store = innermost(app.store)
    assert isinstance(store, AzureBlobStore)
    store.close()


def _sync(app: App) -> SyncResult:
    return sync(app, DATASET, OPTIONS)


def test_a_small_change_reads_no_manifest_and_asks_for_no_pack(app: App) -> None:
    root = app.project.dataset_path(DATASET)
    write_tree(root, random_tree(1))
    _sync(app)
    (root / "d1/f1").write_bytes(b"changed")
    assert _sync(app).requests == 6  # HEAD, gc, the pack, the manifest, gc, HEAD
    assert (app.project.state_dir / ".gitignore").exists()


def test_a_pull_does_without_the_import_of_the_sdk(app: App, azurite: Azurite, tmp_path: Path) -> None:
    write_tree(app.project.dataset_path(DATASET), random_tree(1))
    _sync(app)
    clone = tmp_path / "clone"
    write_tree(clone, {".amlctl.toml": (app.project.root / ".amlctl.toml").read_bytes()})
    call = f"main(['sync', '--pull', 'data_blobs/{DATASET}'])"
    program = f"import sys; from amlctl.cli.app import run as main; print({call}, 'azure.storage.blob' in sys.modules)"
    variables = {**os.environ, "AZURE_STORAGE_SAS_TOKEN": azurite.sas(app.store.url.split("/")[-2])}
    done = subprocess.run([sys.executable, "-c", program], cwd=clone, env=variables, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr
    assert read_tree(clone / "data_blobs" / DATASET) == read_tree(app.project.dataset_path(DATASET))


def test_who_checks_a_store_sees_no_copies(app: App) -> None:
    assert isinstance(app.store, CachedStore)
    assert without_copies(app.store) is app.store.store


def test_a_folder_needs_no_copies(tmp_path: Path) -> None:
    (tmp_path / ".amlctl.toml").write_text("")
    store = open_app(tmp_path, {}).store
    assert not isinstance(store, CachedStore)
    assert isinstance(innermost(store), DirectoryStore)


def test_few_files_of_a_pack_cost_their_own_bytes(tmp_path: Path, azurite: Azurite) -> None:
    rng = random.Random(1)
    tree = {f"f{number:03}": rng.randbytes(20_000) for number in range(400)}
    url, variables = f"{azurite.url}/{azurite.new_container()}", {"AZURE_STORAGE_KEY": azurite.key}
    with closing(AzureBlobStore(url, variables)) as store:
        clone = Clone(tmp_path, store)
        clone.make(tree)
        snapshot = clone.sync(pack_below=1 << 20, pack_size=64 << 20).snapshot
        wanted = list(tree)[::20]
        for path in wanted:
            (clone.root / path).unlink()
        before = store.traffic.received_bytes
        clone.pull(snapshot=snapshot, theirs=True)
        assert clone.tree == tree
        assert store.traffic.received_bytes - before < 1.1 * 20_000 * len(wanted)


@pytest.fixture
def two(tmp_path: Path, azurite: Azurite) -> Iterator[tuple[Clone, Clone, FaultProxy]]:
    """Clones that share a container and have the same files; the first reaches it through the proxy."""
    with fault_proxy(azurite.url) as proxy, ExitStack() as stack:
        container = azurite.new_container()
        clones = []
        for number, url in enumerate((proxy.url, azurite.url)):
            store = AzureBlobStore(f"{url}/{container}", {"AZURE_STORAGE_KEY": azurite.key})
            stack.callback(store.close)
            clones.append(Clone(tmp_path / str(number), store))
        one, other = clones
        one.make({"a": b"a", "b": b"b", "c": b"c"})
        one.sync()
        other.pull()
        yield one, other, proxy


def _between(proxy: FaultProxy, act: Callable[[], object]) -> None:
    """Once, right before the proxy lets a HEAD be written."""
    waiting = [act]

    def look(seen: Seen) -> None:
        if seen.verb == "PUT" and seen.path.split("?")[0].endswith("/HEAD") and waiting:
            waiting.pop()()

    proxy.act = look


def test_the_loser_of_the_race_for_head_plans_again_and_merges(two: tuple[Clone, Clone, FaultProxy]) -> None:
    one, other, proxy = two
    (one.root / "a").write_bytes(b"from one")
    (other.root / "b").write_bytes(b"from the other")
    _between(proxy, other.sync)
    one.sync()
    expected = {"a": b"from one", "b": b"from the other", "c": b"c"}
    for clone in two[:2]:
        clone.pull()
        assert clone.tree == expected


def test_the_loser_of_the_race_for_head_with_the_same_file_gets_a_conflict(
    two: tuple[Clone, Clone, FaultProxy],
) -> None:
    one, other, proxy = two
    (one.root / "a").write_bytes(b"from one")
    (other.root / "a").write_bytes(b"from the other")
    _between(proxy, other.sync)
    with pytest.raises(Conflict) as caught:
        one.sync()
    assert any("a" in line for line in caught.value.details)
    assert one.tree["a"] == b"from one"
    other.pull()
    assert other.tree["a"] == b"from the other"


def test_many_machines_at_once_lose_nothing(tmp_path: Path, azurite: Azurite) -> None:
    container = azurite.new_container()
    with ExitStack() as stack:
        clones = []
        for number in range(4):
            store = AzureBlobStore(f"{azurite.url}/{container}", {"AZURE_STORAGE_KEY": azurite.key})
            stack.callback(store.close)
            clone = Clone(tmp_path / str(number), store)
            clone.make({f"{number}/{file}": b"%d" % file for file in range(5)})
            clones.append(clone)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda clone: clone.sync(), clones))
        clones[0].pull()
        assert clones[0].tree == {f"{number}/{file}": b"%d" % file for number in range(4) for file in range(5)}


def test_an_interrupted_mirror_is_resumed(two: tuple[Clone, Clone, FaultProxy], azurite: Azurite) -> None:
    """What has arrived is named by no manifest yet. A plain file that another program has replaced since goes again."""
    one, other, proxy = two
    tree = random_tree(5, 40)
    one.make(tree)
    arrived: list[Seen] = []
    refused = Reply(403, {"x-ms-error-code": "AuthorizationFailure"})

    def cut_off(seen: Seen) -> Reply | None:
        if seen.verb == "PUT" and "/mirror/" in seen.path:
            if len(arrived) == 20:
                return refused
            arrived.append(seen)
        return None

    proxy.act = cut_off
    with pytest.raises(RightsError):
        one.sync(layout="mirror", jobs=1)
    with BlobClient.from_blob_url(f"{azurite.url}{_below_account(arrived[0])}", credential=azurite.key) as blob:
        blob.upload_blob(b"by another program", overwrite=True)
    proxy.act = lambda seen: None
    proxy.seen.clear()
    assert one.sync(layout="mirror").uploaded_blobs == len(tree) - 19
    sent = [seen.path for seen in proxy.seen if seen.verb == "PUT" and "/mirror/" in seen.path]
    assert len(sent) == len(tree) - 19
    assert not {seen.path for seen in arrived[1:]} & set(sent)
    other.pull()
    assert other.tree == tree
    (one.root / "d0/f0").write_bytes(b"changed")
    proxy.seen.clear()
    one.sync()
    assert not [seen for seen in proxy.seen if "comp=list" in seen.path and "mirror" in seen.path]


def _below_account(seen: Seen) -> str:
    return "/" + seen.path.split("?")[0].split("/", 2)[2]


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("layout", ["mirror", "pack"])
def test_jobs_bound_the_requests_under_way(tmp_path: Path, azurite: Azurite, layout: str, jobs: int) -> None:
    """Of small files, of large ones whose parts travel side by side, of packs and of lists; to and fro."""
    under_way, seen_at_most = 0, 0
    changed = Condition()
    limits = Limits(single_bytes=60_000, block_bytes=20_000, pack_block_bytes=10_000)
    with fault_proxy(azurite.url) as proxy:

        def look(seen: Seen) -> None:
            """Hold whole files until all the requests that are allowed are under way, and a moment longer."""
            nonlocal under_way, seen_at_most
            with changed:
                under_way += 1
                seen_at_most = max(seen_at_most, under_way)
                changed.notify_all()
                if "/objects/" in seen.path or "/mirror/" in seen.path:
                    changed.wait_for(lambda: seen_at_most >= jobs, timeout=60)
            Event().wait(0.01)
            with changed:
                under_way -= 1

        proxy.act = look
        url, variables = f"{proxy.url}/{azurite.new_container()}", {"AZURE_STORAGE_KEY": azurite.key}
        with closing(AzureBlobStore(url, variables, workers=jobs, limits=limits)) as store:
            one, other = Clone(tmp_path / "one", store), Clone(tmp_path / "other", store)
            small = {f"small/{path}": data for path, data in random_tree(3, 20, most=4_000).items()}
            one.make({**random_tree(2, 8, most=90_000), **small})
            for do in (partial(one.sync, layout=layout), other.pull):
                seen_at_most = 0
                do(jobs=jobs)
                assert seen_at_most == jobs
            one.sync(layout=layout, jobs=jobs, verify=True)
            assert seen_at_most == jobs
    assert other.tree == one.tree
