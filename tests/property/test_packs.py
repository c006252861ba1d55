"""Packs are plain zips that depend on nothing but their list; plans send each new content exactly once."""

from __future__ import annotations

import io
import subprocess
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amlctl.core.content_id import content_id
from amlctl.core.manifest import OBJECT, FileEntry, Manifest, Place, empty_manifest, entry_order, needs_no_bytes
from amlctl.core.pack import PackBuilder, Zlib, inflate
from amlctl.core.sync_plan import Layout, plan_sync
from amlctl.localfs.deflate import fastest_compressor

contents = st.dictionaries(
    st.text(min_size=1, max_size=12).filter(lambda s: "\0" not in s), st.binary(min_size=1, max_size=400), max_size=20
)


def _pack(files: dict[str, bytes]) -> tuple[bytes, PackBuilder]:
    builder = PackBuilder(1 << 30, Zlib())
    for path, data in files.items():
        builder.add(content_id(data), path, data)
    return b"".join(builder.finish().buffers), builder


@given(contents)
def test_members_are_where_the_manifest_says(files: dict[str, bytes]) -> None:
    builder = PackBuilder(1 << 30, fastest_compressor())
    unique = {content_id(data): (path, data) for path, data in files.items()}
    for content, (path, data) in unique.items():
        builder.add(content, path, data)
    pack = builder.finish()
    whole = b"".join(pack.buffers)
    assert (len(whole), content_id(whole)) == (pack.size_bytes, pack.id)
    for member in pack.members:
        stored = whole[member.offset : member.offset + member.length]
        assert inflate(stored, member.is_deflated) == unique[member.content_id][1]


@given(contents)
def test_a_pack_is_a_plain_zip(files: dict[str, bytes]) -> None:
    whole, _ = _pack(files)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        assert archive.testzip() is None
        assert sorted(archive.read(name) for name in archive.namelist()) == sorted(files.values())


@given(contents)
def test_one_list_gives_the_same_bytes(files: dict[str, bytes]) -> None:
    assert _pack(files)[0] == _pack(files)[0]


def test_unzip_reads_a_pack_with_hostile_names(tmp_path: Path) -> None:
    names = ["../../evil", "a/b.txt", "quo'te\"\n.txt", "\udcff.bin", "ü.txt", "back\\slash"]
    whole, _ = _pack({name: b"data %d" % number for number, name in enumerate(names)})
    path = tmp_path / "pack.zip"
    path.write_bytes(whole)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "out")
    assert sum(p.is_file() for p in (tmp_path / "out").rglob("*")) == len(names)
    try:
        assert subprocess.run(["unzip", "-tq", str(path)], capture_output=True, check=False).returncode in (0, 1)
    except FileNotFoundError:
        pytest.skip("no unzip on this system; the standard library has read it")


def test_only_what_pays_is_deflated() -> None:
    builder = PackBuilder(1 << 30, fastest_compressor())
    text, noise = b"the same words again " * 500, bytes(__import__("random").Random(1).randbytes(9000))
    builder.add(content_id(text), "a.txt", text)
    builder.add(content_id(noise), "b.jpg", noise)
    first, second = builder.finish().members
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


def _nothing(asked: object) -> dict[str, Place]:
    return {}


@given(entries, entries, layouts)
def test_a_plan_sends_each_new_content_once(local: list[FileEntry], stored: list[FileEntry], layout: Layout) -> None:
    places = {e.content_id: OBJECT for e in stored if not needs_no_bytes(e)}
    plan = plan_sync(local, Manifest("d", "pack", stored, places, {}), layout, _nothing)
    sent = [e.content_id for pack in plan.packs for e in pack] + [e.content_id for e in plan.objects]
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
    places = {c: Place("pack", "a" * 32, 0, e.size_bytes) for c, e in kept.items()}
    head = Manifest("d", "pack", list(kept.values()), places, {"a" * 32: size})
    plan = plan_sync(local, head, Layout("pack", 10_000, 1 << 20), _nothing)
    change = sum(e.size_bytes for c, e in live.items() if c not in kept)
    again = sum(e.size_bytes for pack in plan.packs for e in pack if e.content_id in plan.repacked)
    assert again <= change
    assert plan.send_bytes <= 2 * change


def test_a_dataset_of_few_files_is_not_packed() -> None:
    few = [FileEntry(f"f{i}", 10, False, content_id(b"%d" % i)) for i in range(7)]
    plan = plan_sync(few, empty_manifest("d"), Layout(), _nothing)
    assert (len(plan.packs), len(plan.objects)) == (0, 7)
    eight = [*few, FileEntry("f7", 10, False, content_id(b"7"))]
    plan = plan_sync(eight, empty_manifest("d"), Layout(), _nothing)
    assert (len(plan.packs), len(plan.objects)) == (1, 0)
