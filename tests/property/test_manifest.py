"""What holds for every manifest, whatever its names and sizes."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amlctl.core.content_id import EMPTY, content_id
from amlctl.core.manifest import (
    MIRROR,
    OBJECT,
    FileEntry,
    Kind,
    Manifest,
    StoredAt,
    check_path,
    decode_section,
    encode_section,
    entry_order,
    escape_path,
    shard_entries,
    snapshot_id,
    unescape_path,
)
from amlctl.core.pack import gzip_bytes
from amlctl.core.store_keys import dataset_folder
from amlctl.errors import IntegrityError
from amlctl.snapshots.manifests import read_manifest, write_manifest
from amlctl.stores.directory import DirectoryStore

names = (
    st.binary(min_size=1, max_size=20)
    .map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_").decode("utf-8", "surrogateescape"))
    .filter(lambda name: name not in (".", ".."))
)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
ids = st.binary(max_size=4).map(content_id)
files = st.builds(FileEntry, paths, st.integers(0, 2**50), st.booleans(), ids)


def _sorted(entries: list[FileEntry]) -> list[FileEntry]:
    return sorted({entry.path: entry for entry in entries}.values(), key=entry_order)


snapshots = st.lists(files, max_size=30).map(_sorted)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    entries = draw(snapshots)
    places = {}
    packs = [content_id(b"pack %d" % number) for number in range(3)]
    for entry in entries:
        if entry.content_id != EMPTY:
            packed = st.builds(
                StoredAt,
                st.just(Kind.PACK),
                st.sampled_from(packs),
                st.integers(0, 2**32),
                st.integers(0, 2**32),
                st.booleans(),
            )
            places[entry.content_id] = draw(st.one_of(st.just(OBJECT), st.just(MIRROR), packed))
    sizes = {place.pack: 12345 for place in places.values() if place.kind is Kind.PACK}
    return Manifest("working/x", "pack", entries, places, sizes)


@given(manifests())
def test_sections_come_back_as_they_were(manifest: Manifest) -> None:
    entries: list[FileEntry] = []
    places: dict[str, StoredAt] = {}
    sizes: dict[str, int] = {}
    decode_section(encode_section(manifest.entries, manifest), entries, places, sizes)
    assert entries == list(manifest.entries)
    assert places == manifest.places
    assert sizes == manifest.pack_sizes


@given(paths)
def test_escaped_paths_are_one_line_and_come_back(path: str) -> None:
    escaped = escape_path(path)
    escaped.encode()
    assert "\n" not in escaped
    assert "\t" not in escaped
    assert unescape_path(escaped) == path


@given(snapshots, snapshots)
def test_the_snapshot_id_distinguishes_snapshots(one: list[FileEntry], other: list[FileEntry]) -> None:
    assert (snapshot_id(one) == snapshot_id(other)) == (one == other)


@given(st.lists(files, max_size=300).map(_sorted), st.integers(4, 64))
def test_shards_are_the_entries_in_order(entries: list[FileEntry], mean: int) -> None:
    shards = list(shard_entries(entries, mean=mean))
    assert [entry for shard in shards for entry in shard] == entries
    assert all(mean // 4 <= len(shard) <= 2 * mean for shard in shards[:-1])


@given(st.integers(0, 1999))
def test_one_changed_file_changes_one_shard(number: int) -> None:
    entries = _sorted([FileEntry(f"f{i:05}", i, False, content_id(b"%d" % i)) for i in range(2000)])
    changed = list(entries)
    changed[number] = changed[number]._replace(content_id=content_id(b"changed"))
    before = [tuple(shard) for shard in shard_entries(entries, mean=64)]
    after = [tuple(shard) for shard in shard_entries(changed, mean=64)]
    assert len(set(after) - set(before)) == 1


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a//b", "", "a/.", "nul\0"])
def test_paths_that_leave_the_dataset_are_refused(path: str) -> None:
    with pytest.raises(IntegrityError):
        check_path(path)


@given(st.text("a./\0", max_size=6))
def test_paths_with_an_invalid_part_are_refused(path: str) -> None:
    parts = path.removesuffix("/").split("/")
    is_good = path == "." or not ("\0" in path or {"", ".", ".."} & set(parts))
    try:
        check_path(path)
    except IntegrityError:
        assert not is_good
    else:
        assert is_good


@given(st.binary(max_size=5000))
def test_gzip_files_are_those_of_every_gzip(data: bytes) -> None:
    assert gzip.decompress(gzip_bytes(data)) == data
    assert gzip_bytes(data) == gzip_bytes(data)


@given(st.lists(names, min_size=1, max_size=4).map("/".join))
def test_dataset_folders_never_meet_what_amlctl_puts_there(dataset: str) -> None:
    folder = dataset_folder(dataset)
    assert folder.encode().decode() == folder
    assert all(part not in ("HEAD", "shards") and not part.endswith(".gz") for part in folder.split("/"))


def test_a_large_manifest_is_written_in_shards_and_rewrites_one(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    entries = _sorted([FileEntry(f"d/{i:06}", 1, False, content_id(b"%d" % i)) for i in range(40_000)])
    first = Manifest("d", "pack", entries, {entry.content_id: OBJECT for entry in entries}, {})
    key = write_manifest(store, first).key
    back = read_manifest(store, key)
    assert list(back.entries) == entries
    assert len(back.shards) > 3
    changed = list(entries)
    changed[12_345] = changed[12_345]._replace(content_id=content_id(b"new"))
    sent = store.traffic.sent_bytes
    places = {entry.content_id: OBJECT for entry in changed}
    write_manifest(store, Manifest("d", "pack", changed, places, {}, shards=back.shards))
    whole = sum(entry.size_bytes for entry in store.list("datasets/"))
    assert store.traffic.sent_bytes - sent < whole / 3


def test_a_damaged_manifest_is_reported(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    entry = FileEntry("a", 1, False, content_id(b"a"))
    key = write_manifest(store, Manifest("d", "pack", [entry], {entry.content_id: OBJECT}, {})).key
    data = store.get(key)
    for damaged in (data[: len(data) // 2], data[:-9] + b"x" + data[-8:], b"nonsense"):
        store.put(key, damaged, replace=True)
        with pytest.raises(IntegrityError):
            read_manifest(store, key)
