"""What an account with a hierarchical namespace does otherwise than Azurite, as an `act` of a fault proxy before it.

Folders are there as soon as a file is below them, and stay when they are empty. A listing and a request for one folder
show it as an empty blob, it cannot be overwritten, and only an empty one can be deleted, without the header for
snapshots. By https://learn.microsoft.com/azure/storage/blobs/data-lake-storage-known-issues and by the errors in
Azure/azure-storage-fuse#1068, Azure/azure-cli#23062 and #23783.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.support.fault_proxy import Reply, Seen
from tests.support.wire_faults import Fault, WireReply, send

_AT = "Mon, 01 Jan 2024 00:00:00 GMT"
_FOLDER = {"x-ms-meta-hdi_isfolder": "true", "x-ms-resource-type": "directory", "ETag": '"f"', "Last-Modified": _AT}


class Hierarchical:
    """Of all containers. Files are those that were written through this proxy."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, seen: Seen) -> Reply | Fault | None:
        url = urlsplit(seen.path)
        _, _, container, *names = unquote(url.path).split("/")
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        name = f"{container}/{'/'.join(names)}"
        if query.get("comp") == "list" and seen.verb == "GET":
            return self._lists(container, query)
        if not names:
            return None
        with self._lock:
            if seen.verb in ("GET", "HEAD") and name in self._folders and query.get("comp") != "blocklist":
                return Reply(200, {"x-ms-version": "2021-12-02", **_FOLDER})
            if seen.verb == "DELETE" and name in self._folders:
                return self._delete_folder(name, seen)
            if seen.verb == "PUT" and (name in self._folders or self._files.intersection(_above(name))):
                return _refusal(409, "InvalidOperation", "not allowed in the current state of the entity")
        return self._follows(seen, name) if seen.verb in ("PUT", "DELETE") else None

    def _delete_folder(self, name: str, seen: Seen) -> Reply:
        if any(one.lower() == "x-ms-delete-snapshots" for one in seen.headers):
            return _refusal(400, "OperationNotSupportedOnDirectory", "not supported on a directory")
        if any(one.startswith(f"{name}/") for one in (*self._files, *self._folders)):
            return _refusal(409, "DirectoryIsNotEmpty", "not permitted on a non-empty directory")
        self._folders.remove(name)
        return Reply(202, {"x-ms-version": "2021-12-02"})

    def _follows(self, seen: Seen, name: str) -> Fault:
        def act(handler: BaseHTTPRequestHandler, pass_on: Callable[[], WireReply]) -> None:
            reply = pass_on()
            if reply.status < 300 and not seen.is_block:
                with self._lock:
                    if seen.verb == "PUT":
                        self._files.add(name)
                        self._folders.update(_above(name))
                    else:
                        self._files.discard(name)
            send(handler, reply)

        return act

    def _lists(self, container: str, query: dict[str, str]) -> Fault:
        def act(handler: BaseHTTPRequestHandler, pass_on: Callable[[], WireReply]) -> None:
            reply = pass_on()
            prefix = f"{container}/{query.get('prefix', '')}"
            with self._lock:
                below = {one.partition("/")[2] for one in self._folders if one.startswith(prefix) and "/" in one}
            if reply.status == 200 and "marker" not in query:
                if query.get("delimiter"):
                    present = set(re.findall(rb"<BlobPrefix><Name>(.*?)/</Name>", reply.body))
                    rest = {one for one in below if "/" not in one[len(query.get("prefix", "")) :]}
                    added = [f"<BlobPrefix><Name>{escape(one)}/</Name></BlobPrefix>" for one in sorted(rest)]
                    added = [one for one in added if one.encode()[18:-21] not in present]
                else:
                    added = [_shown(one) for one in sorted(below)]
                body = reply.body.replace(b"<Blobs/>", b"<Blobs></Blobs>")
                reply = WireReply(200, reply.headers, body.replace(b"</Blobs>", "".join(added).encode() + b"</Blobs>"))
            send(handler, reply)

        return act


def _above(name: str) -> set[str]:
    """The folders that a blob is in, without its container."""
    parts = name.split("/")
    return {"/".join(parts[:depth]) for depth in range(2, len(parts))}


def _shown(folder: str) -> str:
    return (
        f"<Blob><Name>{escape(folder)}</Name><Properties><Last-Modified>{_AT}</Last-Modified><Etag>f</Etag>"
        "<ResourceType>directory</ResourceType><Content-Length>0</Content-Length><BlobType>BlockBlob</BlobType>"
        "</Properties><Metadata><hdi_isfolder>true</hdi_isfolder></Metadata></Blob>"
    )


def _refusal(status: int, code: str, words: str) -> Reply:
    text = f"The requested operation is {words}."
    body = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>{text}</Message></Error>'
    headers = {"x-ms-error-code": code, "x-ms-version": "2021-12-02", "Content-Type": "application/xml"}
    return Reply(status, headers, body.encode())
