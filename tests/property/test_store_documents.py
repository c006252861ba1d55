"""No document of a store, however it is broken, ends in anything but an error that names it."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amlctl.core.content_id import content_id
from amlctl.core.document import MOST_BYTES, gunzip, parse
from amlctl.core.events import null_sink
from amlctl.core.head import Head, encode_head, parse_head
from amlctl.core.manifest import (
    FileEntry,
    Kind,
    Manifest,
    StoredAt,
    decode_header,
    decode_section,
    encode_header,
    encode_section,
)
from amlctl.core.pack import gzip_bytes
from amlctl.core.store_keys import FORMAT_KEY, GC_KEY, head_key
from amlctl.errors import AmlctlError
from amlctl.operations.dataset.listing import stats
from amlctl.operations.store.gc import gc
from amlctl.operations.store.needed import KeepRules
from amlctl.operations.store.verify import verify
from amlctl.runs.tree import read_index
from amlctl.snapshots.contents import read_content
from amlctl.snapshots.gc_mark import GcWatch
from amlctl.snapshots.heads import read_head
from amlctl.snapshots.manifests import read_manifest
from amlctl.snapshots.store_format import find_store_id
from amlctl.stores.directory import DirectoryStore
from tests.support.clock import YEAR_LATER
from tests.support.clones import DATASET, Clones, random_tree

EXECUTIONS = int(os.environ.get("FUZZ_EXECUTIONS", "300"))
"""Per document; a night's run takes 100,000."""
FUZZ = settings(max_examples=EXECUTIONS)

ODD: st.SearchStrategy[object] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 1 << 63, 1 << 200, -(1 << 70), 10**4000]),
    st.floats(),
    st.text(max_size=40),
    st.sampled_from(["../../etc/passwd", "", "/", "a\0b", "x" * 70_000, "\ud800", "0" * 32, "runs/../gc/running"]),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)


@st.composite
def broken_json(draw: st.DrawFn, document: object) -> bytes:
    """A valid document with one value replaced, removed or added somewhere, or some of its bytes changed."""
    kind = draw(st.sampled_from(["value", "value", "value", "bytes", "deep", "cut"]))
    if kind == "deep":
        return draw(st.sampled_from([b"[", b'{"a":', b'{"files":['])) * draw(st.integers(1, 100_000))
    if kind == "value":
        document = json.loads(json.dumps(document))
        at = document
        while isinstance(at, (dict, list)) and at:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            key = draw(st.sampled_from(keys))
            if draw(st.booleans()) or not isinstance(at[key], (dict, list)) or not at[key]:
                if draw(st.integers(0, 4)) == 0:
                    del at[key]
                else:
                    at[key] = draw(ODD)
                break
            at = at[key]
    try:
        data = bytearray(json.dumps(document).encode())
    except ValueError:  # a number that no JSON of Python writes
        return b'{"format": 1' + b"0" * 5000 + b"}"
    if kind == "cut":
        return bytes(data[: draw(st.integers(0, len(data)))])
    if kind == "bytes":
        for _ in range(draw(st.integers(1, 5))):
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@st.composite
def broken_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(changed) - 1))
        how = draw(st.sampled_from(["set", "cut", "copy", "number"]))
        if how == "set":
            changed[at] = draw(st.integers(0, 255))
        elif how == "cut":
            del changed[at : at + draw(st.integers(1, 40))]
        elif how == "copy":
            changed[at:at] = changed[at : at + draw(st.integers(1, 200))]
        else:
            changed[at:at] = draw(
                st.sampled_from([b"-1", b"9" * 30, b" ", b":", b"\t", b"\n", b"../", b"%2F..", b"%00"])
            )
        if not changed:
            break
    return bytes(changed)


CONTENTS = [content_id(b"%d" % number) for number in range(6)]
MANIFEST = Manifest(
    DATASET,
    "pack",
    [FileEntry(f"d/f{number}", 10 + number, number % 2 == 0, content) for number, content in enumerate(CONTENTS)],
    {
        content: StoredAt(Kind.PACK, "ab" * 16, 30 + number, 10, number % 2 == 0)
        if number < 4
        else StoredAt(Kind.OBJECT)
        for number, content in enumerate(CONTENTS)
    },
    {"ab" * 16: 1000},
)
HEADER = encode_header(MANIFEST, ["cd" * 16 + ".gz"], "2026-11-01")
HEAD = Head("ab" * 16, f"datasets/{DATASET}/{'ab' * 16}-{'cd' * 16}.gz", "pack", "ef" * 16, 3, 1, ("01" * 8,))


@FUZZ
@given(broken_bytes(encode_section(MANIFEST.entries, MANIFEST)))
def test_sections(data: bytes) -> None:
    entries: list[FileEntry] = []
    places: dict[str, StoredAt] = {}
    sizes: dict[str, int] = {}
    try:
        decode_section(data, entries, places, sizes)
    except AmlctlError:
        return
    found = Manifest(DATASET, "pack", entries, places, sizes)
    store = DirectoryStore(Path("/nonexistent"))
    for entry in entries:
        if entry.content_id in places:
            with pytest.raises(AmlctlError):
                read_content(store, found, entry)


@FUZZ
@given(broken_json(json.loads(HEADER)))
def test_headers(data: bytes) -> None:
    try:
        header, _ = decode_header(data)
    except AmlctlError:
        return
    assert all(name.endswith(".gz") and "/" not in name for name in header.shards)


@FUZZ
@given(broken_json(json.loads(encode_head(HEAD, DATASET))))
def test_heads(data: bytes) -> None:
    try:
        value = parse_head(data, DATASET)
    except AmlctlError:
        return
    assert value.is_fence or value.manifest_key.startswith(f"datasets/{DATASET}/")


@FUZZ
@given(data=broken_json({"format": 2, "id": "ab" * 16}))
def test_format_json(tmp_path: Path, data: bytes) -> None:
    store = DirectoryStore(tmp_path / "store", is_synced=False)
    store.put(FORMAT_KEY, data, replace=True)
    try:
        assert find_store_id(store) in ("", *(json.loads(data).values()))
    except AmlctlError:
        return


@FUZZ
@given(
    data=broken_json({"files": [["a/b", 5, False, CONTENTS[0]]], "pending": [["a/b", 6, True, CONTENTS[1]]]}),
    is_packed=st.booleans(),
)
def test_lists_of_outputs_and_code(tmp_path: Path, data: bytes, is_packed: bool) -> None:
    store = DirectoryStore(tmp_path / "store", is_synced=False)
    store.put("runs/r/outputs.json", gzip_bytes(data) if is_packed else data, replace=True)
    try:
        files = read_index(store, "runs/r/outputs.json") or []
    except AmlctlError:
        return
    assert all(file.size_bytes >= 0 and ".." not in file.path.split("/") for file in files)


@FUZZ
@given(data=broken_json({"host": "h", "machine": "0" * 8, "process": 7, "started": 1, "renewed": 1, "generation": 4}))
def test_the_mark_of_gc(tmp_path: Path, data: bytes) -> None:
    store = DirectoryStore(tmp_path / "store", is_synced=False)
    store.put(GC_KEY, data, replace=True)
    watch = GcWatch(store, null_sink)
    watch.note()
    assert watch.generation >= 0


@pytest.fixture(scope="module")
def clones(tmp_path_factory: pytest.TempPathFactory) -> Clones:
    clones = Clones(tmp_path_factory.mktemp("fuzz"))
    clones.store = DirectoryStore(clones.folder / "store", is_synced=False)
    clones["one"].make(random_tree(1, 10))
    clones["one"].sync()
    manifest_key = clones["one"].sync().manifest_key
    record = {"run": "r", "status": "Completed", "code": "", "manifests": {DATASET: manifest_key}}
    clones.store.put("runs/r/record.json", json.dumps(record).encode())
    clones.store.put("runs/r/outputs.json", b'{"files": []}')
    named = {DATASET: {"snapshot": clones["one"].sync().snapshot, "manifest_key": manifest_key}}
    clones.store.put("runs/r/published.json", json.dumps(named).encode())
    return clones


KEYS = ["runs/r/record.json", "runs/r/published.json", "runs/r/outputs.json", "format.json", head_key(DATASET)]


@settings(FUZZ, max_examples=max(20, EXECUTIONS // 10))
@given(choice=st.data())
@pytest.mark.parametrize("key", KEYS)
def test_commands_on_a_store_with_one_broken_document(clones: Clones, key: str, choice: st.DataObject) -> None:
    path = clones.path(key)
    before = path.read_bytes()
    path.write_bytes(choice.draw(broken_json(json.loads(before))))
    commands: list[Callable[[], object]] = [
        lambda: verify(clones.store, null_sink),
        lambda: stats(clones.store),
        lambda: gc(clones.store, KeepRules(YEAR_LATER), delete=False, sink=null_sink),
        lambda: read_head(clones.store, DATASET),
    ]
    try:
        for command in commands:
            with suppress(AmlctlError):
                command()
    finally:
        path.write_bytes(before)


@FUZZ
@given(data=broken_bytes(gzip_bytes(HEADER)))
def test_manifest_files(tmp_path: Path, data: bytes) -> None:
    """Under the name that says they are whole: as one who wants to do harm would write them."""
    store = DirectoryStore(tmp_path / "store", is_synced=False)
    key = f"datasets/{DATASET}/{MANIFEST.snapshot}-{content_id(data)}.gz"
    store.put(key, data, replace=True)
    with pytest.raises(AmlctlError):
        read_manifest(store, key)


def test_a_bomb_is_not_unpacked() -> None:
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    data = b"".join(bomb.compress(bytes(1 << 20)) for _ in range(512)) + bomb.flush()
    assert len(data) < 1 << 20
    with pytest.raises(ValueError, match="unpacks to more than"):
        gunzip(data)
    with pytest.raises(ValueError, match="unpacks to more than 1000 bytes"):
        gunzip(gzip_bytes(bytes(2000)), 1000)
    assert gunzip(gzip_bytes(b"x" * 1000), 1000) == b"x" * 1000
    assert MOST_BYTES < 1 << 30


@pytest.mark.parametrize("data", [b"[" * 1_000_000, b"NaN", b"-Infinity", b'{"a": 1e999999}x', b"9" * 10_000, b"\xff"])
def test_what_python_takes_beyond_json_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|deep|Extra data|decode|digits|number"):
        parse(data)
