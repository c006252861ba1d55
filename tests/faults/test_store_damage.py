"""`store verify` finds every damage: each kind of value is flipped, cut, emptied, deleted and swapped."""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from amlctl.core.content_id import content_id
from amlctl.core.events import null_sink
from amlctl.core.manifest import FileEntry, snapshot_id
from amlctl.core.pack import gzip_bytes
from amlctl.core.store_keys import (
    code_index_key,
    code_prefix,
    outputs_index_key,
    outputs_tree,
    published_key,
)
from amlctl.operations.store.verify import VerifyResult, verify
from amlctl.runs.produced import Publisher
from amlctl.runs.records import save_record
from amlctl.runs.tree import TreeFile, encode_index
from amlctl.runs.tree_saver import TreeSaver
from amlctl.stores.directory import DirectoryStore
from tests.support.clones import Clones, random_tree
from tests.support.rights import ROOT_READS_ALL, run_without_root_rights
from tests.support.runs import run_record
from tests.support.trees import write_tree
from tests.support.warm_command import WarmCommand

UNDETECTABLE = ("logs/", "record.json", "mirror.lease", "gc/")
"""Nothing says what these should be; a flipped byte in a record is noticed where it breaks the record."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damage")


@pytest.fixture(scope="module")
def clones(folder: Path) -> Clones:
    """Packs, objects, a mirror, shards, two snapshots, two runs (one of two nodes, one that has published), code."""
    clones = Clones(folder)
    clones.store = DirectoryStore(folder / "store", is_synced=False)
    one = clones["one"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("amlctl.snapshots.manifests.SHARD_FROM", 20)
        patch.setattr("amlctl.snapshots.manifests.SHARD_MEAN", 8)
        for seed in (1, 2):
            one.make(random_tree(seed, 24) | {"big": b"%d" % seed * 9000, "empty": b""}, "raw/sharded")
            one.sync("raw/sharded")
    one.make(random_tree(3, 12), "working/packed")
    old = one.sync("working/packed")
    one.make(random_tree(4, 12), "working/packed")
    one.sync("working/packed")
    one.make({"a": b"plain", "d/b": b"file" * 500, "none": b""}, "raw/mirror")
    one.sync("raw/mirror", layout="mirror")
    code = _code(clones.store)
    record = run_record(
        "run-1", "a.py", code=code, manifests={"working/packed": old.manifest_key}, status="Completed", instances=2
    )
    save_record(clones.store, record)
    for rank in (0, 1):
        outputs = folder / f"outputs-{rank}"
        write_tree(outputs, {"model.bin": random.Random(rank).randbytes(3000), "d/graph.txt": b"text" * 50})
        TreeSaver(clones.store, outputs, outputs_tree("run-1", rank)).save()
    clones.store.put("runs/run-1/logs/log.txt", b"some lines\n")
    _published(clones, folder)
    assert verify(clones.store, null_sink).damaged == []
    return clones


def _code(store: DirectoryStore) -> str:
    files = {"pipeline/a.py": b"print(1)\n", "pipeline/sub/b.py": b"import a\n"}
    rows = [FileEntry(path, len(data), False, content_id(data)) for path, data in files.items()]
    code = snapshot_id(rows)
    for path, data in files.items():
        store.put(code_prefix(code) + path, data)
    store.put(code_index_key(code), gzip_bytes(encode_index([TreeFile(*row) for row in rows])))
    return code


def _published(clones: Clones, folder: Path) -> None:
    """A run whose dataset has no HEAD yet."""
    produced = folder / "produced"
    write_tree(produced, random_tree(9, 12))
    found = Publisher(clones.store, produced, "working/produced").publish()
    save_record(clones.store, run_record("run-2", "a.py", status="Completed", produces=["working/produced"]))
    named = {"working/produced": {"snapshot": found.snapshot, "manifest_key": found.manifest_key}}
    clones.store.put(published_key("run-2"), json.dumps(named).encode())
    clones.store.put(outputs_index_key("run-2"), encode_index([]))


def _flip(at: float) -> Callable[[bytes], bytes]:
    def harm(data: bytes) -> bytes:
        if not data:
            return b"x"
        changed = bytearray(data)
        changed[min(len(data) - 1, int(at * len(data)))] ^= 0x41
        return bytes(changed)

    return harm


HARMS: dict[str, Callable[[bytes], bytes]] = {
    **{f"flip at {at}": _flip(at) for at in (0.0, 0.31, 1.0)},
    "cut": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "longer": lambda data: data + b"x",
    "zeros": lambda data: bytes(len(data)),
}


def _rewrite(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _harmed(clones: Clones, key: str, change: Callable[[Path], None]) -> VerifyResult:
    path = clones.folder / "store" / key
    data, mode = path.read_bytes(), path.stat().st_mode
    path.chmod(0o644)
    try:
        change(path)
        return verify(clones.store, null_sink)
    finally:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode)


def _is_detectable(key: str, data: bytes, changed: bytes) -> bool:
    if changed == data:
        return False
    return not any(kind in key for kind in UNDETECTABLE)


def test_every_damage_of_every_value_is_found(clones: Clones, record_property: Callable[[str, object], None]) -> None:
    tried = 0
    unseen = []
    for key in sorted(clones.stored_keys()):
        path = clones.folder / "store" / key
        data = path.read_bytes()
        for name, harm in HARMS.items():
            if not _is_detectable(key, data, harm(data)):
                continue
            tried += 1
            result = _harmed(clones, key, partial(_rewrite, data=harm(data)))
            if not any(line.startswith(key) for line in result.damaged) and not _is_about(key, result):
                unseen.append((key, name, result.damaged))
        if key not in _may_vanish(clones) and not any(kind in key for kind in ("logs/", "gc/", "mirror.lease")):
            tried += 1
            result = _harmed(clones, key, Path.unlink)
            if not result.damaged:
                unseen.append((key, "deleted", []))
    record_property("damages", tried)
    assert not unseen, "\n".join(map(str, unseen))
    assert tried > 200


def _may_vanish(clones: Clones) -> set[str]:
    """An older snapshot that only its own manifest tells of: gone, it is as if gc had deleted it."""
    folder = "datasets/raw/sharded/"
    head = json.loads(clones.store.get(f"{folder}HEAD"))["manifest"]
    return {key for key in clones.stored_keys(folder) if key.endswith(".gz") and key.count("/") == 3} - {head}


def _is_about(key: str, result: VerifyResult) -> bool:
    """A list that names something else makes its files wrong."""
    folder = key.rpartition("/")[0]
    return any(damage.key.startswith(folder) for damage in result.damages)


@pytest.mark.parametrize("pair", [("raw/sharded", "working/packed"), ("raw/mirror", "working/packed")])
def test_heads_that_changed_places_are_found(clones: Clones, pair: tuple[str, str]) -> None:
    first, second = (clones.folder / "store/datasets" / name / "HEAD" for name in pair)
    one, other = first.read_bytes(), second.read_bytes()
    try:
        first.write_bytes(other)
        second.write_bytes(one)
        assert set(verify(clones.store, null_sink).to_repair) == set(pair)
    finally:
        first.write_bytes(one)
        second.write_bytes(other)


@pytest.mark.parametrize("kind", ["packs", "objects", "datasets/raw/sharded/shards", "code", "runs/run-1/outputs"])
def test_values_that_changed_places_are_found(clones: Clones, kind: str) -> None:
    keys = sorted(key for key in clones.stored_keys(kind + "/") if not key.endswith(".json"))[:2]
    if len(keys) < 2:
        pytest.skip(f"{kind} has one value only")
    first, second = (clones.folder / "store" / key for key in keys)
    for path in (first, second):
        path.chmod(0o644)
    one, other = first.read_bytes(), second.read_bytes()
    try:
        first.write_bytes(other)
        second.write_bytes(one)
        damaged = verify(clones.store, null_sink).damaged
        assert all(any(line.startswith(key) for line in damaged) for key in keys)
    finally:
        first.write_bytes(one)
        second.write_bytes(other)


def test_each_damage_names_its_key_and_what_repairs_it(clones: Clones) -> None:
    key = "datasets/working/packed/HEAD"
    [damage] = _harmed(clones, key, Path.unlink).damages
    assert damage.key == key
    assert damage.repair == "amlctl sync --repair data_blobs/working/packed"
    key = outputs_index_key("run-1")
    [damage] = _harmed(clones, key, Path.unlink).damages
    assert (damage.key, damage.repair) == (key, "amlctl submit --from run-1")


def test_what_cannot_be_checked_is_reported(clones: Clones) -> None:
    assert "runs/*/logs: 1" in verify(clones.store, null_sink).unchecked


def test_the_bytes_of_a_pack_around_its_members_are_checked(clones: Clones) -> None:
    [key, *_] = sorted(clones.stored_keys("packs/"))
    for at in (0, 10, -1, -30):

        def change(path: Path, at: int = at) -> None:
            data = bytearray(path.read_bytes())
            data[at] ^= 1
            path.write_bytes(data)

        [line] = _harmed(clones, key, change).damaged
        assert line.startswith(key)
        assert "no file" in line or "its bytes are not" in line


_VERIFY_WITHOUT_EACH = """
import sys
from pathlib import Path
from amlctl.core.events import null_sink
from amlctl.operations.store.verify import verify
from amlctl.stores.directory import DirectoryStore
for kind in sys.argv[2:]:
    path = sorted(Path(sys.argv[1]).glob(kind))[0]
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        damages = verify(DirectoryStore(Path(sys.argv[1])), null_sink).damages
    finally:
        path.chmod(mode)
    key = path.relative_to(sys.argv[1]).as_posix()
    assert key in {one.key for one in damages}, (key, damages)
"""


@ROOT_READS_ALL
def test_a_value_that_may_not_be_read_hides_no_other_damage(clones: Clones) -> None:
    kinds = [kind for kind in KINDS if kind != "format.json"]
    done = run_without_root_rights(_VERIFY_WITHOUT_EACH, str(clones.folder / "store"), *kinds)
    assert done.returncode == 0, done.stderr


_GROWN_BYTES = 3 << 30
KINDS = (
    "format.json",
    "datasets/raw/sharded/HEAD",
    "datasets/raw/sharded/*.gz",
    "datasets/raw/sharded/shards/*.gz",
    "packs/*/*.zip",
    "objects/*/*",
    "mirror/raw/mirror/a",
    "code/*.json",
    "code/*/pipeline/a.py",
    "runs/run-1/record.json",
    "runs/run-1/outputs.json",
    "runs/run-1/outputs/model.bin",
    "runs/run-2/published.json",
)
"""One value of each of these is grown, or becomes a pipe."""


def _command(warm: WarmCommand, clones: Clones, *arguments: str) -> tuple[int, str]:
    """Exit code and output of the real one, in little memory."""
    project = clones["reader"].project.root
    (project / ".amlctl.toml").touch()
    store = ("--store", str(clones.folder / "store"))
    done = warm([*arguments, *store], project, os.environ, 120, module="tests.support.little_memory")
    return done.returncode, (done.stdout + done.stderr).decode()


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of a process")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("harm", ["grown", "a pipe"])
def test_a_value_that_has_grown_or_is_a_pipe_is_damage(clones: Clones, warm: WarmCommand, kind: str, harm: str) -> None:
    """It is named, and neither fills the memory nor is waited for."""
    [path, *_] = sorted((clones.folder / "store").glob(kind))
    kept, mode = path.with_name(".amlctl-tmp-kept"), path.stat().st_mode
    path.rename(kept)
    try:
        if harm == "grown":
            path.write_bytes(kept.read_bytes())
            os.truncate(path, _GROWN_BYTES)
        else:
            os.mkfifo(path)
        code, reported = _command(warm, clones, "store", "verify")
        for dataset in ("raw/sharded", "working/packed", "raw/mirror"):
            pulled, said = _command(warm, clones, "sync", "--pull", f"data_blobs/{dataset}")
            assert pulled in (0, 1), said
            assert "memory" not in said
    finally:
        path.unlink()
        kept.rename(path)
        path.chmod(mode)
    assert code == 1, reported
    assert str(path.relative_to(clones.folder / "store")) in reported
