"""A killed sync or pull loses nothing, shows nothing half, and repeats nothing that had arrived."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from amlctl.core.content_id import content_id
from amlctl.core.events import null_sink
from amlctl.core.settings import LayoutName
from amlctl.core.store_keys import head_key
from amlctl.errors import IntegrityError
from amlctl.localfs.project import Project
from amlctl.operations.store.verify import verify
from amlctl.operations.sync.pull import pull
from amlctl.operations.sync.sync import SyncOptions, sync
from amlctl.snapshots.heads import read_head
from amlctl.snapshots.manifests import read_manifest
from amlctl.stores.directory import DirectoryStore
from tests.support.clones import Clones
from tests.support.context import Context
from tests.support.dying_sync import DIED, OPTIONS
from tests.support.trees import Tree, read_tree, write_tree
from tests.support.warm_command import WarmCommand

DATASET = "working/x"


def _tree(seed: int, files: int = 60) -> Tree:
    rng = random.Random(seed)
    return {f"d{n % 7}/f{n}": rng.randbytes(rng.randint(1, 6_000)) for n in range(files)}


def _packs(store: DirectoryStore) -> set[str]:
    return {entry.key for entry in store.list("packs/")}


def _stored(folder: Path, store: DirectoryStore) -> Tree | None:
    """What a stranger sees in the store."""
    if read_head(store, DATASET) is None:
        return None
    stranger = Project(folder / "stranger")
    shutil.rmtree(stranger.root, ignore_errors=True)
    stranger.data_blobs_dir.mkdir(parents=True)
    pull(Context(stranger, store), DATASET, SyncOptions())
    return read_tree(stranger.dataset_path(DATASET))


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("is_first", [True, False])
def test_killed_at_every_call_of_the_store(tmp_path: Path, warm: WarmCommand, moment: str, is_first: bool) -> None:
    old = None if is_first else _tree(1, 24)
    new = {**_tree(1, 24), **{f"d0/new{n}": b"%d" % n * 500 for n in range(20)}, "big": b"x" * 9_000}
    deaths = 0
    # Odd calls die before, even ones after: together every call is a last one.
    for calls in range(1 if moment == "before" else 2, 60, 2):
        folder = tmp_path / str(calls)
        project, store = Project(folder / "p"), DirectoryStore(folder / "store")
        root = project.dataset_path(DATASET)
        if old is not None:
            write_tree(root, old)
            sync(Context(project, store), DATASET, OPTIONS)
        write_tree(root, new)
        code = warm.program("tests.support.dying_sync", store.url, calls, moment, project.root, DATASET)
        if code == 0:
            break
        assert code == DIED
        deaths += 1
        seen = _stored(folder, store)
        assert seen in (old, new)
        arrived = _packs(store)
        sync(Context(project, store), DATASET, OPTIONS)
        assert _stored(folder, store) == new
        # Every pack that had arrived is named now: nothing of it was sent again under another name.
        head = read_head(store, DATASET)
        assert head is not None
        named = {f"packs/{p[:2]}/{p}.zip" for p in read_manifest(store, head.manifest_key).pack_sizes}
        assert arrived <= named
    assert deaths >= 4


@pytest.mark.parametrize("seed", range(2))
def test_sigkill_at_random_moments(tmp_path: Path, seed: int) -> None:
    """The installed command, killed again and again; the store always has a whole snapshot or none."""
    rng = random.Random(seed)
    project, store = Project(tmp_path / "p"), DirectoryStore(tmp_path / "p/.amlctl/store")
    tree = _tree(seed, 1500)
    write_tree(project.dataset_path(DATASET), tree)
    project.settings_file.write_text('[sync]\npack_size = "200KiB"\npack_below = "4KiB"\n')
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-m", "amlctl", "--project", str(project.root), "--quiet", "sync", f"data_blobs/{DATASET}"]
        )
        time.sleep(rng.uniform(0.15, 0.8))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert _stored(tmp_path, store) in (None, tree)
    sync(Context(project, store), DATASET, SyncOptions())
    assert _stored(tmp_path, store) == tree
    assert verify(store, null_sink).damaged == []


def test_a_killed_pull_is_resumed(tmp_path: Path) -> None:
    project, store = Project(tmp_path / "p"), DirectoryStore(tmp_path / "store")
    tree = _tree(5, 3000)
    write_tree(project.dataset_path(DATASET), tree)
    sync(Context(project, store), DATASET, OPTIONS)
    clone = Project(tmp_path / "clone")
    clone.data_blobs_dir.mkdir(parents=True)
    clone.settings_file.write_text(f'[workspaces.local]\nstore = "{store.url}"\n')
    rng = random.Random(5)
    target = clone.dataset_path(DATASET)
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-m", "amlctl", "--project", str(clone.root), "--quiet", "sync", "--pull", DATASET]
        )
        time.sleep(rng.uniform(0.2, 0.7))
        process.send_signal(signal.SIGKILL)
        process.wait()
        here = read_tree(target) if target.exists() else {}
        whole = {path: data for path, data in here.items() if not path.rpartition("/")[2].startswith(".amlctl-tmp-")}
        assert all(tree[path] == data for path, data in whole.items() if not path.endswith("/"))
    result = pull(Context(clone, store), DATASET, OPTIONS)
    assert result.downloaded_files <= len(tree) - sum(not path.endswith("/") for path in whole)
    found = read_tree(target)
    assert {path: data for path, data in found.items() if ".amlctl-tmp-" not in path} == tree


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete"])
@pytest.mark.parametrize("kind", ["packs", "objects"])
def test_damage_is_found_reported_and_repaired(tmp_path: Path, harm: str, kind: str) -> None:
    project, store = Project(tmp_path / "p"), DirectoryStore(tmp_path / "store")
    tree = {**_tree(6), "big": b"b" * 50_000}
    write_tree(project.dataset_path(DATASET), tree)
    sync(Context(project, store), DATASET, OPTIONS)
    victim = store.local_path(next(store.list(f"{kind}/")).key)
    assert victim is not None
    data = bytearray(victim.read_bytes())
    victim.chmod(0o644)
    if harm == "delete":
        victim.unlink()
    elif harm == "truncate":
        victim.write_bytes(data[: len(data) // 2])
    else:
        data[len(data) // 3] ^= 0xFF
        victim.write_bytes(data)
    damaged = verify(store, null_sink).damaged
    if not damaged:
        # The flipped byte is the zip's own (a header): no content is harmed.
        assert (harm, kind) == ("flip", "packs")
        return
    with pytest.raises(IntegrityError, match="damaged or missing"):
        sync(Context(project, store), DATASET, SyncOptions(pack_size=20_000, pack_below=4_000, verify=True))
    stranger = Project(tmp_path / "stranger")
    stranger.data_blobs_dir.mkdir(parents=True)
    with pytest.raises(Exception, match=r"damaged|not in the store"):
        pull(Context(stranger, store), DATASET, OPTIONS)
    written = read_tree(stranger.dataset_path(DATASET))
    assert all(content_id(tree[p]) == content_id(d) for p, d in written.items() if not p.endswith("/"))
    sync(Context(project, store), DATASET, SyncOptions(pack_size=20_000, pack_below=4_000, repair=True))
    assert verify(store, null_sink).damaged == []
    assert _stored(tmp_path, store) == tree


@pytest.mark.parametrize("layout", ["auto", "mirror"])
@pytest.mark.parametrize("harm", ["flip", "delete"])
def test_a_lost_list_is_written_again_where_it_was_made(tmp_path: Path, harm: str, layout: LayoutName) -> None:
    project, store = Project(tmp_path / "p"), DirectoryStore(tmp_path / "store")
    options = SyncOptions(pack_size=20_000, pack_below=4_000, layout=layout)
    tree = {**_tree(6), "big": b"b" * 50_000}
    write_tree(project.dataset_path(DATASET), tree)
    manifest = store.local_path(sync(Context(project, store), DATASET, options).manifest_key)
    pack = store.local_path(next(store.list("packs/" if layout == "auto" else "mirror/")).key)
    assert manifest is not None
    assert pack is not None
    for path in (manifest, pack):
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-20] + bytes(20)) if harm == "flip" else path.unlink()
    other = Project(tmp_path / "other")
    write_tree(other.dataset_path(DATASET), {"only": b"this"})
    with pytest.raises(IntegrityError, match="not the one of this machine") as caught:
        sync(Context(other, store), DATASET, replace(options, repair=True))
    assert "--force" in caught.value.hint
    sync(Context(project, store), DATASET, replace(options, repair=True))
    assert verify(store, null_sink).damaged == []
    assert _stored(tmp_path, store) == tree


@pytest.mark.parametrize(("head", "layout"), [(b"", "auto"), (b"\x00" * 80, "auto"), (b"", "mirror")])
def test_a_damaged_head_is_named_and_repaired(tmp_path: Path, head: bytes, layout: LayoutName) -> None:
    """As a power cut leaves it: its name is there, its bytes are not."""
    clones = Clones(tmp_path)
    one, two = clones["one"], clones["two"]
    one.make(_tree(7))
    one.sync(layout=layout)
    two.pull()
    (two.root / "theirs").write_bytes(b"theirs")
    two.sync()
    clones.store.put(head_key(DATASET), head, replace=True)
    (one.root / "ours").write_bytes(b"ours")
    with pytest.raises(IntegrityError, match=f"HEAD of {DATASET} cannot be read") as caught:
        one.sync()
    assert caught.value.hint == f"amlctl sync --repair data_blobs/{DATASET}"
    assert verify(clones.store, null_sink).to_repair == [DATASET]
    one.sync(repair=True)
    assert verify(clones.store, null_sink).damaged == []
    assert clones.stored() == {**_tree(7), "theirs": b"theirs", "ours": b"ours"}


def test_a_damaged_head_without_any_snapshot_says_what_to_delete(tmp_path: Path) -> None:
    one = Clones(tmp_path)["one"]
    one.make(_tree(8))
    one.store.put(head_key(DATASET), b"")
    with pytest.raises(IntegrityError) as caught:
        one.sync(repair=True)
    assert f"delete {head_key(DATASET)} in {one.store.url}" in caught.value.hint
