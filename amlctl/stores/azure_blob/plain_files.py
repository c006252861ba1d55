"""Blobs that others have put beside a store, in the same container: read once, copied within the service."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from amlctl.core.content_id import ContentHasher
from amlctl.core.message import AGAIN
from amlctl.errors import Conflict
from amlctl.stores.azure_blob.service import NEW, BlobService
from amlctl.stores.azure_blob.upload import CONTENT_ID, copied
from amlctl.stores.contract import PlainFile

_RANGE_BYTES = 8 << 20
_CHANGED = (404, 412)


class BlobFiles:
    """Satisfies `stores.contract.PlainFiles`."""

    def __init__(self, container: BlobService, url: str, prefix: str, store_prefix: str) -> None:
        """`container` has no prefix; `store_prefix` is that of the store."""
        self._container = container
        self.prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._store_prefix = store_prefix
        self.url = f"{url}/{self.prefix}"

    def files(self) -> Sequence[PlainFile]:
        found = self._container.values(self.prefix)
        others = (one for one in found if not one.key.startswith(self._store_prefix or "\0"))
        return [PlainFile(one.key[len(self.prefix) :], one.size_bytes) for one in others]

    def read(self, file: PlainFile, here: Path | None) -> tuple[str, str]:
        if here is not None and (found := self._as_here(file, here)):
            return found
        hasher, version, at = ContentHasher(), "", 0
        while at < file.size_bytes:
            size = min(_RANGE_BYTES, file.size_bytes - at)
            answer = self._container.get_range(self.prefix + file.path, at, size, version, accept=(*_CHANGED, 416))
            if answer.status >= 400 or len(answer.data) != size:
                raise self._changed(file)
            version = version or answer.etag
            hasher.update(answer.data)
            at += size
        return hasher.hexdigest(), version

    def _as_here(self, file: PlainFile, here: Path) -> tuple[str, str] | None:
        """The service has the MD5 of what was written in one piece, and of what AzCopy was told to give one."""
        answer = self._container.properties(self.prefix + file.path, accept=(404,))
        wanted = answer.headers.get("content-md5", "")
        if not wanted:
            return None
        md5, hasher = hashlib.md5(usedforsecurity=False), ContentHasher()
        try:
            with here.open("rb") as opened:
                while data := opened.read(_RANGE_BYTES):
                    md5.update(data)
                    hasher.update(data)
        except OSError:
            return None
        is_equal = base64.b64encode(md5.digest()).decode() == wanted
        return (hasher.hexdigest(), answer.etag) if is_equal else None

    def copy(self, file: PlainFile, version: str, key: str, content_id: str) -> None:
        source, target = self.prefix + file.path, self._store_prefix + key
        answer = self._container.copy(
            source, target, NEW, {CONTENT_ID: content_id}, source_etag=version, accept=(*_CHANGED, 409)
        )
        if answer.status >= 400:
            if self._container.properties(target, accept=(404,)).status != 404:
                return  # the store has it
            raise self._changed(file) if answer.status in _CHANGED else self._container.error(answer, source)
        copied(self._container, answer, file.path, target)

    def _changed(self, file: PlainFile) -> Conflict:
        return Conflict(f"{file.path} in {self.url} changed while it was read", hint=AGAIN)
