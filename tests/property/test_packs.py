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
from amlctl.core.pack import Pack, PackBuilder, fast_zlib, inflate

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
    packed = _Packed(fast_zlib(), part_bytes)
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
    packed = _Packed(fast_zlib())
    text, noise = b"the same words again " * 500, bytes(__import__("random").Random(1).randbytes(9000))
    packed.builder.add(content_id(text), "a.txt", text)
    packed.builder.add(content_id(noise), "b.jpg", noise)
    first, second = packed.finish()[1].members
    assert first.is_deflated
    assert first.length < len(text) / 5
    assert (second.is_deflated, second.length) == (False, len(noise))
