"""Packs are plain zips that depend on nothing but their list; plans send each new content exactly once."""

from __future__ import annotations

import io
import subprocess
import zipfile
import zlib
from pathlib import Path
from random import Random
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amlctl.core.content_id import content_id
from amlctl.core.manifest import (
    OBJECT,
    FileEntry,
    Kind,
    Manifest,
    StoredAt,
    empty_manifest,
    entry_order,
    needs_no_bytes,
)
from amlctl.core.pack import FAST_ZLIB, Pack, PackBuilder, inflate
from amlctl.core.sync_plan import Layout, plan_sync

contents = st.dictionaries(
    st.text(min_size=1, max_size=12).filter(lambda s: "\0" not in s), st.binary(min_size=1, max_size=400), max_size=20
)


class _Packed:
    """A builder whose parts are of `part_bytes`, or of one member; what it has put out is a copy, as its memory is used
    again."""

    def __init__(self, library: ModuleType, part_bytes: int = 4096) -> None:
        self._memory = bytearray(part_bytes)
        self.parts: list[bytes] = []
        self.builder = PackBuilder(1 << 30, self._new_memory, lambda part: self.parts.append(bytes(part)), library)

    def _new_memory(self, size_bytes: int) -> memoryview:
        return memoryview(self._memory if size_bytes <= len(self._memory) else bytearray(size_bytes))

    def finish(self) -> tuple[bytes, Pack]:
        pack = self.builder.finish()
        return b"".join(self.parts), pack


def _pack(files: dict[str, bytes], part_bytes: int = 4096) -> bytes:
    packed = _Packed(zlib, part_bytes)
    for path, data in files.items():
        packed.builder.add(content_id(data), path, data)
    return packed.finish()[0]


@given(contents, st.integers(1, 2000), st.randoms())
def test_members_are_where_the_manifest_says(files: dict[str, bytes], part_bytes: int, choices: Random) -> None:
    """Also where rooms were asked for and not used, or not for all that they have."""
    packed = _Packed(FAST_ZLIB, part_bytes)
    unique = {content_id(data): (path, data) for path, data in files.items()}
    for content, (path, data) in unique.items():
        if choices.random() < 0.3:
            room = packed.builder.room("not kept", choices.randrange(500))
            room[:] = choices.randbytes(len(room))
        if choices.random() < 0.5:
            packed.builder.add(content, path, data)
        else:
            room = packed.builder.room(path, len(data) + choices.randrange(100))
            room[: len(data)] = data
            packed.builder.keep(content, len(data))
    whole, pack = packed.finish()
    assert len(whole) == pack.size_bytes
    assert [member.content_id for member in pack.members] == list(unique)
    for member in pack.members:
        stored = whole[member.offset : member.offset + member.length]
        data = unique[member.content_id][1]
        assert (inflate(stored, len(data)) if member.is_deflated else stored) == data


@given(contents)
def test_a_pack_is_a_plain_zip(files: dict[str, bytes]) -> None:
    whole = _pack(files)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        assert archive.testzip() is None
        assert sorted(archive.read(name) for name in archive.namelist()) == sorted(files.values())


@given(contents, st.integers(1, 2000))
def test_one_list_gives_the_same_bytes_however_it_is_cut(files: dict[str, bytes], part_bytes: int) -> None:
    assert _pack(files) == _pack(files, part_bytes)


def test_unzip_reads_a_pack_with_hostile_names(tmp_path: Path) -> None:
    names = ["../../evil", "a/b.txt", "quo'te\"\n.txt", "\udcff.bin", "ü.txt", "back\\slash"]
    whole = _pack({name: b"data %d" % number for number, name in enumerate(names)})
    path = tmp_path / "pack.zip"
    path.write_bytes(whole)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "out")
    assert sum(p.is_file() for p in (tmp_path / "out").rglob("*")) == len(names)
    try:
        assert subprocess.run(["unzip", "-tq", str(path)], capture_output=True, check=False).returncode in (0, 1)
    except FileNotFoundError:
        pytest.skip("no unzip on this system; the standard library has read it")


def test_long_names_that_only_differ_at_their_end_get_one_each() -> None:
    """Also where one of them is what another would be given."""
    start = "p" * 900
    files = {name: name[-9:].encode() for name in (f"{start}~3", f"{start}A/{'y' * 200}", f"{start}B/{'y' * 200}")}
    files = {**files, f"{start}~4": b"4", f"{start}C/{'y' * 200}": b"C"}
    with zipfile.ZipFile(io.BytesIO(_pack(files))) as archive:
        assert len(set(archive.namelist())) == len(files)


def test_only_what_pays_is_deflated() -> None:
    packed = _Packed(FAST_ZLIB)
    text, noise = b"the same words again " * 500, bytes(__import__("random").Random(1).randbytes(9000))
    packed.builder.add(content_id(text), "a.txt", text)
    packed.builder.add(content_id(noise), "b.jpg", noise)
    first, second = packed.finish()[1].members
    assert first.is_deflated
    assert first.length < len(text) / 5
    assert (second.is_deflated, second.length) == (False, len(noise))


sizes = st.integers(0, 3000)
entries = st.lists(st.tuples(st.sampled_from([f"p{i}" for i in range(30)]), sizes), max_size=30).map(
    lambda pairs: sorted(
        {p: FileEntry(p, s, False, content_id(b"%d" % s) if s else content_id(b"")) for p, s in pairs}.values(),
        key=entry_order,
    )
)
layouts = st.builds(Layout, st.sampled_from(["auto", "pack"]), st.just(1000), st.integers(1, 5000))


def _nothing(asked: object) -> dict[str, StoredAt]:
    return {}


@given(entries, entries, layouts)
def test_a_plan_sends_each_new_content_once(local: list[FileEntry], stored: list[FileEntry], layout: Layout) -> None:
    places = {e.content_id: OBJECT for e in stored if not needs_no_bytes(e)}
    plan = plan_sync(local, Manifest("d", "pack", stored, places, {}), layout, _nothing)
    sent = [e.content_id for pack in plan.packs for e in pack] + [e.content_id for e in plan.files]
    needed = {e.content_id for e in local if not needs_no_bytes(e)}
    assert len(sent) == len(set(sent))
    assert set(sent) == needed - places.keys()
    assert set(plan.places) == needed & places.keys()


@given(entries, layouts)
def test_packs_are_full_but_for_the_last(local: list[FileEntry], layout: Layout) -> None:
    plan = plan_sync(local, empty_manifest("d"), layout, _nothing)
    for pack in plan.packs[:-1]:
        assert sum(e.size_bytes + 200 for e in pack) >= layout.pack_size
    assert all(pack for pack in plan.packs)
    assert [e for pack in plan.packs for e in pack] == sorted((e for p in plan.packs for e in p), key=entry_order)


@given(entries, st.integers(0, 29))
def test_repacking_never_doubles_more_than_the_change(local: list[FileEntry], dead: int) -> None:
    """A pack with dead bytes: the live rest is sent again only up to the size of the change."""
    live = {e.content_id: e for e in local if not needs_no_bytes(e)}
    kept = dict(list(live.items())[: max(0, len(live) - dead)])
    size = sum(e.size_bytes + 200 for e in kept.values()) + 100_000
    places = {c: StoredAt(Kind.PACK, "a" * 32, 0, e.size_bytes) for c, e in kept.items()}
    head = Manifest("d", "pack", list(kept.values()), places, {"a" * 32: size})
    plan = plan_sync(local, head, Layout("pack", 10_000, 1 << 20), _nothing)
    change = sum(e.size_bytes for c, e in live.items() if c not in kept)
    again = sum(e.size_bytes for pack in plan.packs for e in pack if e.content_id in plan.repacked)
    assert again <= change
    assert plan.send_bytes <= 2 * change


def test_a_dataset_of_few_files_is_not_packed() -> None:
    few = [FileEntry(f"f{i}", 10, False, content_id(b"%d" % i)) for i in range(7)]
    plan = plan_sync(few, empty_manifest("d"), Layout(), _nothing)
    assert (len(plan.packs), len(plan.files)) == (0, 7)
    eight = [*few, FileEntry("f7", 10, False, content_id(b"7"))]
    plan = plan_sync(eight, empty_manifest("d"), Layout(), _nothing)
    assert (len(plan.packs), len(plan.files)) == (1, 0)
