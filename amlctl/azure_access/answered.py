"""An answer as the clients and policies of Azure's SDKs read it, and what they use beyond the documented interface.

Documented is `azure.core.rest.HttpResponse`. Besides, azure-core reads `body()`, `internal_response` and
`content_type`; azure-storage-blob reads `stream_download`, whose stream needs `content_length`, and `location_mode`,
which its retry policy sets. A contract test runs all of that against the oldest and the newest supported SDK.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

from azure.core.exceptions import HttpResponseError
from azure.core.rest import HttpResponse


class Fields(dict[str, str]):
    """Headers, kept by their lower-case names and found by any."""

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


class Answered(HttpResponse):
    """The whole body is in memory. `was_repeated`: an earlier attempt of the same request may have acted.

    `attempts` says how often it was tried (`6 attempts in 12 s`), where it was given up.
    """

    def __init__(
        self, request: Any, status: int, reason: str, fields: Mapping[str, str], data: bytes, was_repeated: bool
    ) -> None:
        self._request = request
        self._status = status
        self._reason = reason
        self._fields = Fields(fields)
        self._data = data
        self._encoding: str | None = None
        self.was_repeated = was_repeated
        self.attempts = ""
        self.location_mode = "primary"
        self.block_size = max(1, len(data))
        self.context: Any = {}

    @property
    def request(self) -> Any:
        return self._request

    @property
    def url(self) -> str:
        return str(self._request.url)

    @property
    def status_code(self) -> int:
        return self._status

    @property
    def reason(self) -> str:
        return self._reason

    @property
    def headers(self) -> Fields:
        return self._fields

    @property
    def content_type(self) -> str | None:
        found = self._fields.get("content-type")
        return None if found is None else str(found)

    @property
    def encoding(self) -> str | None:
        return self._encoding

    @encoding.setter
    def encoding(self, value: str | None) -> None:
        self._encoding = value

    @property
    def content(self) -> bytes:
        return self._data

    @property
    def is_closed(self) -> bool:
        return True

    @property
    def is_stream_consumed(self) -> bool:
        return True

    @property
    def internal_response(self) -> Answered:
        return self

    def body(self) -> bytes:
        return self._data

    def read(self) -> bytes:
        return self._data

    def text(self, encoding: str | None = None) -> str:
        return self._data.decode(encoding or self._encoding or "utf-8-sig", errors="replace")

    def json(self) -> Any:
        return json.loads(self.text())

    def raise_for_status(self) -> None:
        if self._status >= 400:
            raise HttpResponseError(response=self)

    def iter_bytes(self, **_: Any) -> Iterator[bytes]:
        return iter((self._data,) if self._data else ())

    iter_raw = iter_bytes

    def stream_download(self, *_: Any, **__: Any) -> Stream:
        return Stream(self)

    def close(self) -> None:
        """The connection has been given back already."""

    def __enter__(self) -> Answered:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self.close()


class Stream:
    """The body in one piece, as a client that downloads takes it; it puts the blob's `properties` here."""

    properties: Any

    def __init__(self, response: Answered) -> None:
        self.response = response
        self.request = response.request
        self.content_length = len(response.content)
        self._pieces = response.iter_bytes()

    def __len__(self) -> int:
        return self.content_length

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def __next__(self) -> bytes:
        return next(self._pieces)
