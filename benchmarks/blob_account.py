"""What an account of Blob Storage holds, in memory, and the verbs that read and change it.

One account, no signature is checked. It knows what AzCopy, rclone, azure-storage-blob and amlctl ask for: containers,
block blobs by Put Blob or by blocks, ranges, conditions, metadata, MD5, lists, copies from itself.
"""

from __future__ import annotations

import base64
import bisect
import email.utils
import hashlib
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

_KEPT = ("content-type", "content-encoding", "content-language", "content-disposition", "cache-control")
_etags = itertools.count(1)
Buffer = bytes | bytearray | memoryview
Headers = dict[str, str]
Reply = tuple[int, Headers, Sequence[Buffer]]


@dataclass
class Blob:
    """`blocks`: ids and bytes in order; a blob that was put in one piece has one block without an id."""

    blocks: list[tuple[str, Buffer]]
    headers: Headers
    metadata: Headers
    etag: str = ""
    modified: str = ""
    size: int = 0

    def __post_init__(self) -> None:
        self.size = sum(len(data) for _, data in self.blocks)
        self.touch()

    def touch(self) -> None:
        self.etag = f'"0x{next(_etags):016X}"'
        self.modified = http_time()

    def described(self) -> Headers:
        about = {"ETag": self.etag, "Last-Modified": self.modified, "x-ms-blob-type": "BlockBlob", **self.headers}
        about |= {"Accept-Ranges": "bytes", "x-ms-creation-time": self.modified, "x-ms-lease-status": "unlocked"}
        about |= {"x-ms-lease-state": "available", "x-ms-server-encrypted": "true"}
        return about | self.metadata

    def cut(self, start: int, end: int) -> list[Buffer]:
        found: list[Buffer] = []
        position = 0
        for _, data in self.blocks:
            low, high = max(start - position, 0), min(end - position, len(data))
            if low < high:
                found.append(memoryview(data)[low:high])
            position += len(data)
        return found


@dataclass
class Container:
    blobs: dict[str, Blob] = field(default_factory=dict)
    pending: dict[str, dict[str, Buffer]] = field(default_factory=dict)
    """Uncommitted blocks, by blob and id."""
    etag: str = '"0x1"'
    modified: str = ""
    _names: list[str] | None = None

    def names(self) -> list[str]:
        if self._names is None:
            self._names = sorted(self.blobs)
        return self._names

    def keep(self, name: str, blob: Blob) -> Reply:
        if name not in self.blobs:
            self._names = None
        self.blobs[name] = blob
        self.pending.pop(name, None)
        return 201, {"ETag": blob.etag, "Last-Modified": blob.modified} | _md5(blob), ()

    def drop(self, name: str) -> None:
        del self.blobs[name]
        self._names = None


@dataclass(frozen=True)
class Request:
    verb: str
    container: str
    blob: str
    query: Mapping[str, str]
    headers: Headers
    body: Buffer = b""


class Refused(Exception):
    def __init__(self, status: int, code: str) -> None:
        super().__init__(status, code)


class Service:
    """What the account holds, and the verbs."""

    def __init__(self) -> None:
        self._containers: dict[str, Container] = {}

    def answer(self, request: Request) -> Reply:
        try:
            return self._verb(request)(request)
        except Refused as refused:
            status, code = refused.args
            text = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
            return status, {"x-ms-error-code": code, "Content-Type": "application/xml"}, (text.encode(),)

    def _verb(self, request: Request) -> Callable[[Request], Reply]:
        comp = request.query.get("comp", "")
        if not request.container:
            return self._list_containers if comp == "list" else self._account
        if not request.blob:
            of_container = {"PUT": self._create_container, "DELETE": self._delete_container}
            return self._list_blobs if comp == "list" else of_container.get(request.verb, self._show_container)
        if request.verb != "PUT":
            others = {"GET": self._get, "HEAD": self._get, "DELETE": self._delete}
            return self._get_block_list if comp == "blocklist" else others.get(request.verb, _unknown)
        if comp == "" and "x-ms-copy-source" in request.headers:
            return self._copy
        puts = {"": self._put, "block": self._put_block, "blocklist": self._put_block_list}
        return {**puts, "metadata": self._set, "properties": self._set, "tier": self._set}.get(comp, _unknown)

    def _account(self, request: Request) -> Reply:
        if request.query.get("restype") == "account":
            return 200, {"x-ms-sku-name": "Standard_LRS", "x-ms-account-kind": "StorageV2"}, ()
        return 200, {"Content-Type": "application/xml"}, (b"<StorageServiceProperties></StorageServiceProperties>",)

    def _list_containers(self, request: Request) -> Reply:
        about = "".join(
            f"<Container><Name>{name}</Name><Properties><Last-Modified>{one.modified}</Last-Modified>"
            f"<Etag>{one.etag}</Etag></Properties></Container>"
            for name, one in sorted(self._containers.items())
        )
        return _xml(f"<EnumerationResults><Containers>{about}</Containers><NextMarker/></EnumerationResults>")

    def _create_container(self, request: Request) -> Reply:
        if "comp" in request.query:
            return _unknown(request)
        if request.container in self._containers:
            raise Refused(409, "ContainerAlreadyExists")
        made = self._containers[request.container] = Container(modified=http_time())
        return 201, {"ETag": made.etag, "Last-Modified": made.modified}, ()

    def _delete_container(self, request: Request) -> Reply:
        self._container(request)
        del self._containers[request.container]
        return 202, {}, ()

    def _show_container(self, request: Request) -> Reply:
        container = self._container(request)
        return 200, {"ETag": container.etag, "Last-Modified": container.modified}, ()

    def _list_blobs(self, request: Request) -> Reply:
        container, query = self._container(request), request.query
        prefix, delimiter, marker = query.get("prefix", ""), query.get("delimiter", ""), query.get("marker", "")
        limit = min(int(query.get("maxresults", "5000")), 5000)
        with_metadata = "metadata" in query.get("include", "")
        names = container.names()
        lines: list[str] = []
        position = bisect.bisect_left(names, max(prefix, marker))
        while position < len(names) and names[position].startswith(prefix) and len(lines) < limit:
            name = names[position]
            cut = name.find(delimiter, len(prefix)) if delimiter else -1
            if cut < 0:
                lines.append(_listed(name, container.blobs[name], with_metadata))
                position += 1
            else:
                folder = name[: cut + len(delimiter)]
                lines.append(f"<BlobPrefix><Name>{escape(folder)}</Name></BlobPrefix>")
                position = bisect.bisect_left(names, folder + "\U0010ffff", position)
        is_more = position < len(names) and names[position].startswith(prefix)
        return _xml(
            f'<EnumerationResults ServiceEndpoint="http://127.0.0.1/" ContainerName="{request.container}">'
            f"<Prefix>{escape(prefix)}</Prefix><Marker>{escape(marker)}</Marker><MaxResults>{limit}</MaxResults>"
            f"<Blobs>{''.join(lines)}</Blobs><NextMarker>{escape(names[position]) if is_more else ''}</NextMarker>"
            "</EnumerationResults>"
        )

    def _put(self, request: Request) -> Reply:
        container = self._writable(request)
        headers = _content(request.headers)
        given = request.headers.get("content-md5")
        headers.setdefault("Content-MD5", given or base64.b64encode(hashlib.md5(request.body).digest()).decode())
        return container.keep(request.blob, Blob([("", request.body)], headers, _metadata(request.headers)))

    def _put_block(self, request: Request) -> Reply:
        container = self._container(request)
        container.pending.setdefault(request.blob, {})[request.query["blockid"]] = request.body
        return 201, {}, ()

    def _put_block_list(self, request: Request) -> Reply:
        container = self._writable(request)
        old = container.blobs.get(request.blob)
        committed = dict(old.blocks) if old else {}
        pending = container.pending.get(request.blob, {})
        blocks = []
        for wanted in ElementTree.fromstring(bytes(request.body)):
            places = {"Latest": (pending, committed), "Committed": (committed,), "Uncommitted": (pending,)}[wanted.tag]
            block_id = wanted.text or ""
            data = next((place[block_id] for place in places if block_id in place), None)
            if data is None:
                raise Refused(400, "InvalidBlockList")
            blocks.append((block_id, data))
        return container.keep(request.blob, Blob(blocks, _content(request.headers), _metadata(request.headers)))

    def _get_block_list(self, request: Request) -> Reply:
        container = self._container(request)
        blob, pending = container.blobs.get(request.blob), container.pending.get(request.blob, {})
        if blob is None and not pending:
            raise Refused(404, "BlobNotFound")
        kind = request.query.get("blocklisttype", "committed")
        committed = [block for block in (blob.blocks if blob else ()) if block[0]]
        parts = []
        if kind in ("committed", "all"):
            parts.append(f"<CommittedBlocks>{_listed_blocks(committed)}</CommittedBlocks>")
        if kind in ("uncommitted", "all"):
            parts.append(f"<UncommittedBlocks>{_listed_blocks(list(pending.items()))}</UncommittedBlocks>")
        status, headers, body = _xml(f"<BlockList>{''.join(parts)}</BlockList>")
        if blob:
            headers |= {"ETag": blob.etag, "Last-Modified": blob.modified}
            headers["x-ms-blob-content-length"] = str(blob.size)
        return status, headers, body

    def _copy(self, request: Request) -> Reply:
        container = self._writable(request)
        path = request.headers["x-ms-copy-source"].split("?", 1)[0].split("/", 3)[3]
        _, source_container, name = unquote(path).split("/", 2)
        source = self._containers[source_container].blobs.get(name) if source_container in self._containers else None
        if source is None:
            raise Refused(404, "CannotVerifyCopySource")
        if request.headers.get("x-ms-source-if-match", source.etag) != source.etag:
            raise Refused(412, "SourceConditionNotMet")
        metadata = _metadata(request.headers) or dict(source.metadata)
        status, headers, body = container.keep(request.blob, Blob(list(source.blocks), dict(source.headers), metadata))
        copied = {"x-ms-copy-id": "00000000-0000-0000-0000-000000000000", "x-ms-copy-status": "success"}
        return 202 if status == 201 else status, headers | copied, body

    def _set(self, request: Request) -> Reply:
        container = self._writable(request)
        blob = self._blob(container, request)
        if request.query["comp"] == "metadata":
            blob.metadata = _metadata(request.headers)
        elif request.query["comp"] == "properties":
            blob.headers = _content(request.headers)
        blob.touch()
        return 200, {"ETag": blob.etag, "Last-Modified": blob.modified}, ()

    def _get(self, request: Request) -> Reply:
        container = self._container(request)
        blob = self._blob(container, request)
        wanted = request.headers
        if wanted.get("if-match", blob.etag) not in (blob.etag, "*"):
            raise Refused(412, "ConditionNotMet")
        if wanted.get("if-none-match") in (blob.etag, "*"):
            return 304, {"ETag": blob.etag}, ()
        about = blob.described()
        given = wanted.get("x-ms-range") or wanted.get("range")
        if request.verb == "HEAD" or not given:
            return 200, {**about, "Content-Length": str(blob.size)}, [] if request.verb == "HEAD" else _data(blob)
        first, _, last = given.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last) + 1 if last else blob.size, blob.size)
        if start >= end:
            raise Refused(416, "InvalidRange")
        if "Content-MD5" in about:
            about["x-ms-blob-content-md5"] = about.pop("Content-MD5")
        about |= {"Content-Range": f"bytes {start}-{end - 1}/{blob.size}", "Content-Length": str(end - start)}
        return 206, about, blob.cut(start, end)

    def _delete(self, request: Request) -> Reply:
        container = self._writable(request)
        self._blob(container, request)
        container.drop(request.blob)
        return 202, {}, ()

    def _container(self, request: Request) -> Container:
        found = self._containers.get(request.container)
        if found is None:
            raise Refused(404, "ContainerNotFound")
        return found

    def _blob(self, container: Container, request: Request) -> Blob:
        found = container.blobs.get(request.blob)
        if found is None:
            raise Refused(404, "BlobNotFound")
        return found

    def _writable(self, request: Request) -> Container:
        """The container, if the conditions for a write hold."""
        container = self._container(request)
        blob = container.blobs.get(request.blob)
        if blob is not None and request.headers.get("if-none-match") == "*":
            raise Refused(409, "BlobAlreadyExists")
        match = request.headers.get("if-match")
        if match is not None and (blob is None or match not in (blob.etag, "*")):
            raise Refused(412, "ConditionNotMet")
        return container


_clock: tuple[int, str] = (0, "")


def http_time() -> str:
    global _clock
    second = int(time.time())
    if second != _clock[0]:
        _clock = second, email.utils.formatdate(second, usegmt=True)
    return _clock[1]


def _unknown(request: Request) -> Reply:
    raise Refused(400, "UnsupportedQueryParameter")


def _xml(text: str) -> Reply:
    document = f'<?xml version="1.0" encoding="utf-8"?>{text}'.encode()
    return 200, {"Content-Type": "application/xml"}, (document,)


def _md5(blob: Blob) -> Headers:
    return {"Content-MD5": blob.headers["Content-MD5"]} if "Content-MD5" in blob.headers else {}


def _data(blob: Blob) -> list[Buffer]:
    return [data for _, data in blob.blocks]


def _content(headers: Headers) -> Headers:
    found = {"Content-Type": "application/octet-stream"}
    for name in _KEPT:
        if value := headers.get(f"x-ms-blob-{name}"):
            found[name.title()] = value
    if value := headers.get("x-ms-blob-content-md5"):
        found["Content-MD5"] = value
    return found


def _metadata(headers: Headers) -> Headers:
    return {name: value for name, value in headers.items() if name.startswith("x-ms-meta-")}


def _listed(name: str, blob: Blob, with_metadata: bool) -> str:
    headers = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in blob.headers.items())
    metadata = ""
    if with_metadata:
        pairs = [(key.removeprefix("x-ms-meta-"), escape(value)) for key, value in blob.metadata.items()]
        metadata = f"<Metadata>{''.join(f'<{key}>{value}</{key}>' for key, value in pairs)}</Metadata>"
    return (
        f"<Blob><Name>{escape(name)}</Name><Properties><Creation-Time>{blob.modified}</Creation-Time>"
        f"<Last-Modified>{blob.modified}</Last-Modified><Etag>{blob.etag.strip(chr(34))}</Etag>"
        f"<Content-Length>{blob.size}</Content-Length>{headers}<BlobType>BlockBlob</BlobType>"
        "<AccessTier>Hot</AccessTier><LeaseStatus>unlocked</LeaseStatus><LeaseState>available</LeaseState>"
        f"</Properties>{metadata}</Blob>"
    )


def _listed_blocks(blocks: Sequence[tuple[str, Buffer]]) -> str:
    return "".join(f"<Block><Name>{escape(key)}</Name><Size>{len(data)}</Size></Block>" for key, data in blocks)
