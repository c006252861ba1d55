"""One file of a public address (or one with a SAS token), over the transport and retries of the Azure adapters.

Redirects are followed, and a connection that breaks is resumed. No error shows the query of an address: it may hold a
signature.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from azure.core.exceptions import AzureError
from azure.core.pipeline import Pipeline, PipelineRequest
from azure.core.pipeline.policies import RedirectPolicy, SansIOHTTPPolicy
from azure.core.rest import HttpRequest

from amlctl.azure_access.connections import is_host
from amlctl.azure_access.retry import Retries, RetryPolicy
from amlctl.azure_access.transport import Read, Transport
from amlctl.core.events import EventSink
from amlctl.core.message import AGAIN
from amlctl.errors import NotFound, RightsError, ServiceUnavailable, SettingsError
from amlctl.localfs.disk_errors import disk_error

TRIES = 4
_PIECE_BYTES = 1 << 20


def download_file(
    url: str, target: Path, etag: str, *, shown: str, variables: Mapping[str, str], tell: EventSink
) -> str | None:
    """Write the content to `target` and return its ETag (empty without one); None if its ETag is still `etag`.

    `shown` is the address in errors. Raises NotFound, RightsError, SettingsError, ServiceUnavailable.
    """
    try:
        parts = urlsplit(quote(url.partition("#")[0], safe="%/:=&?~+!$,;'@()*[]"))
        is_valid = is_host((parts.hostname or "").lower()) and parts.port != 0
    except ValueError:  # also text that is not valid UTF-8
        is_valid = False
    if not is_valid:
        raise SettingsError(f"{shown!a} is not a valid address", hint="https://HOST/PATH")
    part = _Part(target)
    transport = Transport(shown, variables, inspect=part.begin, tell=tell)
    retries = Retries(shown, TRIES, transport.sleep, tell)
    retry = RetryPolicy(
        retries, transport, host_source="address", reason=lambda response: f"status {response.status_code}"
    )
    headers = {"accept-encoding": "identity", **({"if-none-match": etag} if etag else {})}
    request = HttpRequest("GET", f"{parts.scheme}://{parts.netloc}{parts.path or '/'}", headers=headers)
    request.url += f"?{parts.query}" if parts.query else ""
    try:
        pipeline = Pipeline[Any, Any](transport, [RedirectPolicy(), retry, part])
        status = pipeline.run(request, sink=part.write).http_response.status_code
    except (ServiceUnavailable, AzureError) as error:
        reason = error.message if isinstance(error, ServiceUnavailable) else "too many redirects"
        raise ServiceUnavailable(f"{shown} cannot be downloaded: {reason}", hint=AGAIN) from error
    finally:
        transport.close()
    if status == 304:
        return None
    if status in (404, 410):
        raise NotFound(f"{shown} not found (status {status})", hint="check the address")
    if status >= 500 or status in (408, 429):
        raise ServiceUnavailable(f"{shown} cannot be downloaded: status {status}", hint=AGAIN)
    if status >= 300:
        raise RightsError(f"{shown} cannot be read (status {status})", hint="is it public?")
    return part.etag


class _Part(SansIOHTTPPolicy[Any, Any]):
    """What has arrived of the file; further attempts ask for the rest."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._size = 0
        self.etag = ""

    def on_request(self, request: PipelineRequest[Any]) -> None:
        headers = request.http_request.headers
        if self._size and self.etag:
            headers.update({"range": f"bytes={self._size}-", "if-range": self.etag})

    def begin(self, status: int, fields: Mapping[str, str]) -> None:
        if status < 300:
            self._size = self._size if status == 206 else 0
            self.etag = fields.get("etag", "")

    def write(self, read: Read) -> int:
        descriptor = os.open(self._target, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.ftruncate(descriptor, self._size)
            return write_at(descriptor, self._size, read, self._target)
        finally:
            self._size = os.fstat(descriptor).st_size
            os.close(descriptor)


def write_at(descriptor: int, start: int, read: Read, target: Path) -> int:
    """Write a body to an open file; returns the bytes written. Disk errors are ours, so that they are not retried."""
    at = start
    while data := read(_PIECE_BYTES):
        view = memoryview(data)
        while view:
            try:
                written = os.pwrite(descriptor, view, at)
            except OSError as error:
                if (found := disk_error(error, str(target))) is None:
                    raise
                raise found from error
            view = view[written:]
            at += written
    return at - start
