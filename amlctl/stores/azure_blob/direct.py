"""Requests of azure-core alone, over the transport and policies that the SDK's clients have as well.

For the one GET of a sync that finds nothing to do, and for blobs that come in thousands: mirrored files, code, outputs.
Measured in processor time: the import of azure.storage.blob costs 0.11 s, azure.core's 0.02 s; a Put Blob of 20 kB
0.4 ms by the SDK's client, and 0.2 ms here. Everything else goes by azure-storage-blob (`service.py`).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from azure.core import PipelineClient
from azure.core.pipeline import Pipeline
from azure.core.rest import HttpRequest

from amlctl.azure_access.retry import RetryPolicy
from amlctl.azure_access.transport import Answered, Read, Transport
from amlctl.stores.azure_blob.address import BlobAddress
from amlctl.stores.azure_blob.answer import Answer
from amlctl.stores.contract import Buffer, always

_CHUNK = 1 << 18


class Body:
    """Parts that follow each other; small ones travel together. `may_go_on` is asked before each stretch is sent: a
    request that breaks off leaves nothing."""

    def __init__(self, parts: Sequence[Buffer], may_go_on: Callable[[], None] = always) -> None:
        self.parts = parts
        self.may_go_on = may_go_on
        self.size_bytes = sum(memoryview(part).nbytes for part in parts)

    def md5(self) -> bytes:
        digest = hashlib.md5(usedforsecurity=False)
        for part in self.parts:
            digest.update(part)
        return digest.digest()

    def whole(self) -> bytes:
        """In one piece; without a copy where it is one."""
        first = self.parts[0] if len(self.parts) == 1 else None
        return first if isinstance(first, bytes) else b"".join(self.parts)

    def chunks(self) -> Iterator[bytes | memoryview]:
        """Each time from the start, so that a request can be repeated."""
        waiting: list[Buffer] = []
        size = 0
        for part in self.parts:
            if memoryview(part).nbytes >= _CHUNK:
                if waiting:
                    yield b"".join(waiting)
                    waiting, size = [], 0
                yield memoryview(part).cast("B")
                continue
            waiting.append(part)
            size += len(part)
            if size >= _CHUNK:
                yield b"".join(waiting)
                waiting, size = [], 0
        if waiting:
            yield b"".join(waiting)

    __iter__ = chunks
    """By which azure-core knows a body that comes in pieces."""


NO_BODY = Body(())


def md5_header(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


VERSION = "2021-12-02"
"""Of the Blob service's REST interface: https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api."""


class DirectRequests:
    """Thread-safe."""

    def __init__(self, address: BlobAddress, transport: Transport, retry: RetryPolicy, credential: Any) -> None:
        """`credential` is a policy of azure-core that proves who asks."""
        self._address = address
        root = address.account_url
        self._root = root.removesuffix(f"/{address.account}") if address.is_path_style else root
        policies = [retry, credential]
        self._client = PipelineClient[Any, Any](self._root, pipeline=Pipeline(transport, policies=policies))

    def blob(
        self,
        verb: str,
        key: str,
        headers: Mapping[str, str] | None = None,
        body: Body = NO_BODY,
        query: Mapping[str, str] | None = None,
        sink: Callable[[Read], int] | None = None,
    ) -> Answer:
        """The answer about the value of `key`, of whatever status. Raises ServiceUnavailable where none came."""
        return self._send(verb, self._address.blob_path(key), headers or {}, body, query or {}, sink)

    def container(self, verb: str, query: Mapping[str, str]) -> Answer:
        return self._send(verb, self._address.container_path, {}, NO_BODY, {"restype": "container", **query})

    def _send(
        self,
        verb: str,
        path: str,
        headers: Mapping[str, str],
        body: Body,
        query: Mapping[str, str],
        sink: Callable[[Read], int] | None = None,
    ) -> Answer:
        text = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        sent = {"x-ms-version": VERSION, **headers}  # no date: a SAS or a token proves who asks, no signature does
        if verb == "PUT":
            sent["content-length"] = str(body.size_bytes)
        content: Any = body if body.size_bytes else None
        request = HttpRequest(verb, f"{self._root}{path}" + (f"?{text}" if text else ""), headers=sent, content=content)
        answered: Answered = self._client.send_request(request, may_go_on=body.may_go_on, sink=sink)
        return Answer.of(answered)
