"""Manifests: the list of a dataset's files, its canonical bytes and its written form (format 1).

Canonical bytes of a snapshot: for each entry, sorted by the bytes of its path,
`<path> NUL <size> SPACE <x or -> SPACE <content id> LF`; the snapshot id is their xxh3-128. It
covers neither times nor where bytes are stored: a touched file and a repack change nothing.

Paths are POSIX and relative, exactly as the file system has them: text whose undecodable bytes are surrogate
escapes (PEP 383). A path that ends with `/` is an empty folder. The path `.` is a dataset that is one file.

Written form: see `docs/store-format.md`; sections of lines, each with the packs that its lines name.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import repeat
from operator import itemgetter
from typing import Literal, NamedTuple, get_args
from urllib.parse import unquote_to_bytes

import xxhash

from amlctl.core.content_id import EMPTY, is_content_id
from amlctl.core.document import Fields, checked_number, parse
from amlctl.core.message import Command, Message, below_data_blobs
from amlctl.errors import IntegrityError

FORMAT = 1
"""Of manifest files. HEAD and `format.json` count their own."""
ONE_FILE = "."
SHARD_FROM = 32_768
"""Entries from which a manifest is written in shards; below, one file of a megabyte costs fewer requests."""
SHARD_MEAN = 2_048
"""Mean entries of a shard; a border stands where the hash of a path is divisible by it."""

_SURROGATES = "surrogateescape"
_size_of = itemgetter(1)


class FileEntry(NamedTuple):
    """One file: path, size in bytes, executable bit, content id."""

    path: str
    size_bytes: int
    is_executable: bool
    content_id: str


class Kind(Enum):
    """Of a stored content; the values are those of manifest files."""

    PACK = "p"
    OBJECT = "o"
    MIRROR = "m"
    """A plain file under the entry's own path."""


StoredLayout = Literal["pack", "mirror"]
LAYOUTS_WRITTEN: tuple[StoredLayout, ...] = get_args(StoredLayout)


class StoredAt(NamedTuple):
    """Where the store has the bytes of a content id.

    In a pack, `length` bytes from `offset` are the stored bytes, raw deflate where `is_deflated`.
    """

    kind: Kind
    pack: str = ""
    offset: int = 0
    length: int = 0
    is_deflated: bool = False


OBJECT = StoredAt(Kind.OBJECT)
MIRROR = StoredAt(Kind.MIRROR)


def path_bytes(path: str) -> bytes:
    return path.encode("utf-8", _SURROGATES)


def entry_order(entry: FileEntry) -> bytes:
    """Sort key of the canonical order."""
    return entry.path.encode("utf-8", _SURROGATES)


def snapshot_id(entries: Sequence[FileEntry]) -> str:
    """Id of entries that are in canonical order."""
    state = xxhash.xxh3_128()
    parts: list[str] = []
    for path, size, is_executable, content in entries:
        parts.append(f"{path}\0{size} {'x' if is_executable else '-'} {content}\n")
        if len(parts) == 8192:
            state.update("".join(parts).encode("utf-8", _SURROGATES))
            parts.clear()
    state.update("".join(parts).encode("utf-8", _SURROGATES))
    return state.hexdigest()


@dataclass(frozen=True)
class Manifest:
    """A snapshot and where its bytes are.

    `entries` are in canonical order; `places` has a place for every content id but that of zero bytes;
    `pack_sizes` the size in bytes of every pack that a place names, and perhaps of others; `shards` the section files
    it was read from, in order, with the number of entries in each.
    """

    dataset: str
    layout: StoredLayout
    entries: Sequence[FileEntry]
    places: Mapping[str, StoredAt]
    pack_sizes: Mapping[str, int]
    snapshot: str = ""
    created_at: str = ""
    created_by: str = ""
    shards: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.snapshot:
            object.__setattr__(self, "snapshot", snapshot_id(self.entries))

    @property
    def size_bytes(self) -> int:
        return total_bytes(self.entries)


def total_bytes(entries: Iterable[FileEntry]) -> int:
    return sum(map(_size_of, entries))


def empty_manifest(dataset: str) -> Manifest:
    return Manifest(dataset, "pack", (), {}, {})


# --- written form ---------------------------------------------------------------------------------------

_ESCAPED = re.compile(rb"[\x00-\x1f\x7f%]")
_NO_PLAIN_START = frozenset({"", "/", "."})
_KINDS = {at.kind.value: at for at in (OBJECT, MIRROR)}
_SHARD = re.compile(r"[0-9a-f]{32}\.gz")
_MOST_FILES = 1 << 40
_MOST_DIGITS = 18
"""Of a number in a line: what a signed number of 64 bits holds, whatever the digits."""
_MAY_LEAVE = ("\n.", "\n/", "/.", "//", "\0")
"""Paths, one a line, that contain nothing of this stay inside the dataset."""


def escape_path(path: str) -> str:
    """The path in one line of UTF-8: control characters, `%` and undecodable bytes as %XX."""
    if path.isprintable() and "%" not in path:
        return path
    raw = _ESCAPED.sub(lambda match: b"%%%02X" % match.group()[0], path.encode("utf-8", _SURROGATES))
    return "".join(
        f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c for c in raw.decode("utf-8", _SURROGATES)
    )


def _escape_paths(paths: Sequence[str]) -> Sequence[str]:
    joined = "".join(paths)
    return paths if joined.isprintable() and "%" not in joined else list(map(escape_path, paths))


def unescape_path(text: str) -> str:
    return unquote_to_bytes(text).decode("utf-8", _SURROGATES) if "%" in text else text


def check_path(path: str) -> None:
    """Raises IntegrityError for a path that could leave its dataset or that no file system can have."""
    if "/." not in path and "//" not in path and "\0" not in path and path[:1] not in _NO_PLAIN_START:
        return  # nearly all are: three searches instead of a list of parts
    body = path[:-1] if path.endswith("/") else path
    if path == ONE_FILE:
        return
    if not body or "\0" in body or any(part in ("", ".", "..") for part in body.split("/")):
        raise IntegrityError(f"a manifest names the path {path!r}, which leaves its dataset")


def encode_section(entries: Sequence[FileEntry], manifest: Manifest) -> bytes:
    """Lines of some entries, led by a line with the packs that they name."""
    numbers: dict[str, int] = {}
    lines: list[str] = []
    place_of = manifest.places.get
    shown = _escape_paths([entry[0] for entry in entries])
    for path, (_, size, is_executable, content) in zip(shown, entries):
        place = place_of(content)
        if place is None:
            where = "-"
        elif place[0] is Kind.PACK:
            _, pack, offset, length, is_deflated = place
            number = numbers.setdefault(pack, len(numbers))
            where = f"{number}:{offset}:{length}:{'d' if is_deflated else 's'}"
        else:
            where = place[0].value
        lines.append(f"{content} {size} {'x' if is_executable else '-'} {where}\t{path}\n")
    packs = json.dumps({"packs": [[pack, manifest.pack_sizes[pack]] for pack in numbers]})
    return f"{packs}\n{''.join(lines)}".encode()


def decode_section(
    data: bytes, entries: list[FileEntry], places: dict[str, StoredAt], pack_sizes: dict[str, int]
) -> None:
    """Add a section's entries and places to what is given. Raises IntegrityError.

    Column by column: a loop over the lines that checks each value costs a small change half as much again.
    """
    try:
        head, _, body = data.decode().partition("\n")
        packs = _decode_packs(head)
        pack_sizes.update(packs)
        fields_and_paths = body.replace("\n", "\t").split("\t")
        if fields_and_paths.pop() or len(fields_and_paths) % 2:
            raise ValueError("a line is incomplete")
        if not fields_and_paths:
            return
        paths = _decode_paths(fields_and_paths[1::2])
        contents, sizes, flags, where = _columns(fields_and_paths[0::2], " ", 4)
        _check_content_ids(contents)
        if not {"x", "-"}.issuperset(flags):
            raise ValueError("an executable bit is neither x nor -")
        _check_order([*(entry.path for entry in entries[-1:]), *paths])
        rows = zip(paths, _decode_numbers(sizes), map("x".__eq__, flags), contents)
        entries.extend(map(partial(tuple.__new__, FileEntry), rows))
        places.update(_decode_places(dict(zip(contents, where)), packs))
    except (ValueError, KeyError, IndexError) as error:
        raise IntegrityError(f"a manifest cannot be read: {error}", hint=_WHICH) from error


def _decode_packs(line: str) -> list[tuple[str, int]]:
    found = []
    for item in Fields(parse(line.encode())).array("packs"):
        if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str) or not is_content_id(item[0]):
            raise ValueError("a pack is not named by id and size")
        found.append((item[0], checked_number(item[1], "size of a pack")))
    return found


def _columns(lines: Sequence[str], separator: str, count: int) -> list[list[str]]:
    values = separator.join(lines).split(separator)
    if len(values) != count * len(lines):
        raise ValueError("a line has not all of its fields")
    return [values[number::count] for number in range(count)]


def _decode_numbers(texts: Sequence[str]) -> list[int]:
    joined = "".join(texts)
    if not (joined.isascii() and joined.isdigit()) or max(map(len, texts)) > _MOST_DIGITS:
        raise ValueError("a number is negative or out of range")
    return list(map(int, texts))


def _decode_paths(texts: Sequence[str]) -> Sequence[str]:
    joined = "\n".join(["", *texts])
    if "%" in joined or any(sign in joined for sign in _MAY_LEAVE) or not all(texts):
        texts = list(map(unescape_path, texts))
        for path in texts:
            check_path(path)
    return texts


def _decode_places(where: Mapping[str, str], packs: Sequence[tuple[str, int]]) -> Iterator[tuple[str, StoredAt]]:
    packed: dict[str, str] = {}
    for content, text in where.items():
        if text in _KINDS:
            yield content, _KINDS[text]
        elif text != "-":
            packed[content] = text
    if not packed:
        return
    numbers, offsets, lengths, methods = _columns(list(packed.values()), ":", 4)
    if not {"s", "d"}.issuperset(methods):
        raise ValueError("a file is neither stored nor deflated")
    names = [packs[number][0] for number in _decode_numbers(numbers)]
    rows = zip(repeat(Kind.PACK), names, _decode_numbers(offsets), _decode_numbers(lengths), map("d".__eq__, methods))
    yield from zip(packed, map(partial(tuple.__new__, StoredAt), rows))


def _check_content_ids(texts: Sequence[str]) -> None:
    joined = "".join(texts)
    if set(map(len, texts)) != {32} or len(bytes.fromhex(joined)) != 16 * len(texts) or joined != joined.lower():
        raise ValueError("a content id is not 32 hex digits")


def _check_order(paths: Sequence[str]) -> None:
    # UTF-8 keeps the order of code points; only the escapes of undecodable bytes stand elsewhere.
    if not all(map(operator.lt, paths, paths[1:])):
        keys = list(map(path_bytes, paths))
        if not all(map(operator.lt, keys, keys[1:])):
            raise ValueError("its paths are not in order")


def shard_entries(entries: Sequence[FileEntry], *, mean: int = SHARD_MEAN) -> Iterator[Sequence[FileEntry]]:
    """Entries in runs whose borders depend on paths alone, so that an edit moves only its own shard's bytes.

    A run has at least a quarter and at most twice `mean` entries, but for the last.
    """
    start = 0
    for index, entry in enumerate(entries):
        count = index + 1 - start
        is_border = count >= mean // 4 and xxhash.xxh3_64_intdigest(entry_order(entry)) % mean == 0
        if is_border or count >= 2 * mean:
            yield entries[start : index + 1]
            start = index + 1
    if start < len(entries):
        yield entries[start:]


@dataclass(frozen=True)
class ManifestHeader:
    """First line of a manifest file. `shards` are names of section files; empty: the section follows inline."""

    dataset: str
    snapshot: str
    layout: StoredLayout
    files: int
    size_bytes: int
    created_at: str = ""
    created_by: str = ""
    shards: Sequence[str] = field(default_factory=tuple)


def encode_header(manifest: Manifest, shards: Sequence[str], created_at: str) -> bytes:
    document = {
        "format": FORMAT,
        "dataset": manifest.dataset,
        "snapshot": manifest.snapshot,
        "layout": manifest.layout,
        "files": len(manifest.entries),
        "bytes": manifest.size_bytes,
        "created_at": created_at,
        **({"created_by": manifest.created_by} if manifest.created_by else {}),
        "shards": list(shards),
    }
    return (json.dumps(document) + "\n").encode()


def decode_header(data: bytes) -> tuple[ManifestHeader, bytes]:
    """The header and what follows it. Raises IntegrityError, SettingsError (a newer format)."""
    line, _, rest = data.partition(b"\n")
    try:
        fields = Fields(parse(line))
        fields.format(FORMAT, "a manifest")
        shards = fields.array("shards")
        if not all(isinstance(name, str) and _SHARD.fullmatch(name) for name in shards):
            raise ValueError("a shard is not named by its id")
        header = ManifestHeader(
            dataset=fields.text("dataset"),
            snapshot=fields.content_id("snapshot"),
            layout=fields.one_of("layout", LAYOUTS_WRITTEN),
            files=fields.number("files", most=_MOST_FILES),
            size_bytes=fields.number("bytes"),
            created_at=fields.text("created_at", ""),
            created_by=fields.text("created_by", ""),
            shards=tuple(shards),
        )
    except ValueError as error:
        raise IntegrityError(f"a manifest cannot be read: {error}", hint=_WHICH) from error
    return header, rest


def needs_no_bytes(entry: FileEntry) -> bool:
    return entry.content_id == EMPTY or entry.path.endswith("/")


_WHICH = Message(Command("store", "verify"), " tells which")


def repair_command(dataset: str) -> Command:
    """Repairs damage of the dataset in the store."""
    return Command("sync", "--repair", below_data_blobs(dataset))
