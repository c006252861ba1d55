"""The `Store` on a container of Azure Blob Storage: one block blob a key, conditions by ETag."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from amlctl.azure_access.download import write_at
from amlctl.azure_access.transport import Read, Transport
from amlctl.core.content_id import content_id
from amlctl.core.events import EventSink, null_sink
from amlctl.core.store_keys import OBJECTS, area_of
from amlctl.errors import Conflict, NotFound, SettingsError
from amlctl.localfs.disk_errors import changed_while_sent, sending_error
from amlctl.localfs.regular_file import open_regular
from amlctl.stores.azure_blob.address import parse_address
from amlctl.stores.azure_blob.answer import BlobAnswer, check_origin
from amlctl.stores.azure_blob.credentials import Credential, find_credential
from amlctl.stores.azure_blob.direct import BlobBody
from amlctl.stores.azure_blob.links import BlobLinks
from amlctl.stores.azure_blob.plain_files import BlobFiles
from amlctl.stores.azure_blob.service import ANY, FOLDER_MARK, NAME, NEW, BlobService, unchanged
from amlctl.stores.azure_blob.upload import CONTENT_ID, COPIED_FROM, DEFAULT_LIMITS, Jobs, Limits, Uploader
from amlctl.stores.contract import (
    Body,
    Entry,
    FileBody,
    Guard,
    OnBytes,
    Parts,
    Traffic,
    Versioned,
    is_valid_key,
    unobserved,
)
from amlctl.stores.wrappers import Pace

_CONTENT_ID = f"x-ms-meta-{CONTENT_ID}"
_COPIED_FROM = f"x-ms-meta-{COPIED_FROM}"
_IS_FOLDER = f"x-ms-meta-{FOLDER_MARK}"
_ASK_FIRST = 1 << 20
"""From this size, asking first is cheaper than sending a value that exists."""
_RANGE = 8 << 20
_MAX_VERSIONED_BYTES = 16 << 20
"""Of heads, leases and the like; a larger one is damaged and must not fill the memory."""
_WORKERS = 16
"""Parallel blocks and ranges, which need memory."""
_CONCURRENCY = 48
"""Parallel small values, which mostly wait for the network."""
_M_ARENA_MAX = -8
"""Of mallopt(3)."""
_T = TypeVar("_T")


class AzureBlobStore:
    """Thread-safe. `traffic.requests` counts every HTTP request, also retries.

    With `workers`, at most that many requests run at a time. Writes create a missing container. Memory: `workers`
    blocks or pieces of ranges.
    """

    def __init__(
        self,
        url: str,
        variables: Mapping[str, str],
        *,
        workers: int | None = None,
        limits: Limits = DEFAULT_LIMITS,
        pace: Pace | None = None,
        credential: Credential | None = None,
        prefix: str | None = None,
        sleep: Callable[[float], object] | None = None,
        tell: EventSink = null_sink,
    ) -> None:
        """Raises SettingsError. Requests and login happen with the first call.

        `prefix` replaces the URL's. The default `credential` comes from the URL, the variables or the login. `tell`
        gets an event for each retry.
        """
        _use_one_heap()
        address, sas = parse_address(url)
        self._address = address = address if prefix is None else replace(address, prefix=prefix)
        self._credential = credential = credential or find_credential(address, sas, variables)
        self._sleep, self._tell = sleep, tell
        self._traffic = Traffic()
        self._transport = Transport(
            NAME,
            variables,
            traffic=self._traffic,
            pace=pace,
            at_once=workers,
            inspect=functools.partial(check_origin, address.host),
            tell=tell,
        )
        self._transport.prepare(address.account_url)
        self._service = BlobService(address, credential, self._transport, sleep=sleep, tell=tell)
        self._pace = pace
        self._limits = limits
        self._concurrency = workers or _CONCURRENCY
        self._pool = ThreadPoolExecutor(workers or _WORKERS, thread_name_prefix="amlctl-blob")
        self._uploader = Uploader(self._service, limits, self._pool)

    def links(self, until: datetime) -> BlobLinks:
        """Raises SettingsError, UsageError, RightsError: the credential cannot sign such links."""
        return BlobLinks(self._address, self._credential, self._uploader, self._transport, until)

    def plain_files(self, prefix: str) -> BlobFiles:
        """Blobs below the prefix, which is one of the container."""
        whole = replace(self._address, prefix="")
        service = BlobService(whole, self._credential, self._transport, sleep=self._sleep, tell=self._tell)
        return BlobFiles(service, whole.url, prefix, self._address.prefix)

    def close(self) -> None:
        """The store cannot be used afterwards."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._transport.close()

    @property
    def url(self) -> str:
        return self._address.url

    @property
    def folder(self) -> None:
        return None

    @property
    def traffic(self) -> Traffic:
        return self._traffic

    @property
    def concurrency(self) -> int:
        return self._concurrency

    def check_key(self, key: str) -> None:
        self._address.blob_path(_checked(key))

    def get(self, key: str, *, start: int = 0, length: int | None = None, on_bytes: OnBytes = unobserved) -> bytes:
        if length == 0:
            return b""
        if start == 0 and length is None:
            return self._service.get(_checked(key), on_bytes=on_bytes).data
        answer = self._service.get_range(_checked(key), start, length, accept=(416,), on_bytes=on_bytes)
        return b"" if answer.status == 416 else answer.data

    def get_versioned(self, key: str) -> Versioned | None:
        answer = self._service.get(_checked(key), accept=(404,), max_bytes=_MAX_VERSIONED_BYTES)
        return None if answer.status == 404 else Versioned(answer.data, answer.etag)

    def download(self, key: str, target: Path, parts: Parts | None = None, *, on_bytes: OnBytes = unobserved) -> int:
        _checked(key)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if parts is None else 0))

        def get_range(start: int, etag: str) -> BlobAnswer:
            received = 0

            def sink(read: Read) -> int:
                nonlocal received
                received = write_at(descriptor, start, read, target)
                return received

            accept = () if etag else (416,)
            answer = self._service.get_range(key, start, _RANGE, etag, accept=accept, sink=sink, on_bytes=on_bytes)
            if received and parts is not None:
                parts.arrived(start, received)
            return answer

        try:
            if parts is not None and parts.has(0, 1):
                first = self._service.properties(key)
            else:
                first = get_range(0, "")
                if first.status == 416:
                    os.ftruncate(descriptor, 0)
                    return 0
            size, etag = first.size_bytes, first.etag
            jobs = Jobs[BlobAnswer]()
            with jobs.settled():  # no job writes to the descriptor after it is closed
                for start in range(_RANGE, size, _RANGE):
                    if parts is None or not parts.has(start, 1):
                        jobs.add(self._pool.submit(get_range, start, etag))
            os.ftruncate(descriptor, size)  # an earlier value may be longer
            return size
        finally:
            os.close(descriptor)

    def put(self, key: str, body: Body, *, replace: bool = False, on_bytes: OnBytes = unobserved) -> bool:
        try:
            return self._put(key, body, replace=replace, on_bytes=on_bytes)
        except Conflict:
            if not replace or not self._delete_folder(key):
                raise
        return self._put(key, body, replace=replace, on_bytes=on_bytes)

    def _put(self, key: str, body: Body, *, replace: bool, on_bytes: OnBytes) -> bool:
        _checked(key)
        if isinstance(body, FileBody):
            if (
                body.same_as is not None
                and self._uploader.copy_instead(body.same_as, key, {}, replace=replace) is not None
            ):
                return True
            if body.size_bytes > self._limits.single_bytes:
                with_md5 = area_of(key).is_plain
                return self._making_container(
                    lambda: self._uploader.put_file(key, body, replace=replace, with_md5=with_md5, on_bytes=on_bytes)
                )
            with self._uploader.budget.taken(body.size_bytes):
                body.may_go_on()  # after a wait that may be long
                sent = BlobBody([_read(body)], body.may_go_on, on_bytes)
                return self._put_small(key, sent, body.content_id, replace=replace)
        parts = [body] if isinstance(body, bytes) else body
        whole = BlobBody(parts, on_bytes=on_bytes)
        if whole.size_bytes > self._limits.single_bytes:
            return self._making_container(
                lambda: self._uploader.put_parts(key, parts, replace=replace, on_bytes=on_bytes)
            )
        return self._put_small(key, whole, "", replace=replace)

    def _delete_folder(self, key: str) -> bool:
        """Whether `key` was a folder, which a hierarchical account keeps when its last file is gone. Raises Conflict
        where it has files."""
        if self._service.properties(key, accept=range(400, 600)).headers.get(_IS_FOLDER) != "true":
            return False  # also without an answer: the error that led here is shown
        for name in self.folders(f"{key}/"):
            self._delete_folder(f"{key}/{name}")
        self._service.delete(key, is_folder=True)
        return True

    def _put_small(self, key: str, sent: BlobBody, identity: str, *, replace: bool) -> bool:
        if not replace and sent.size_bytes > _ASK_FIRST and self.info(key) is not None:
            return False
        return self._making_container(lambda: self._put_whole(key, sent, identity, replace=replace))

    def swap(self, key: str, data: bytes, *, expected: str | None) -> str:
        _checked(key)
        condition = NEW if expected is None else unchanged(expected)
        # It renews leases, also while other values are being sent.
        with self._transport.urgently():
            answer = self._making_container(lambda: self._put_blob(key, BlobBody([data]), condition, {}))
            if answer.status < 400:
                return answer.etag
            if answer.was_repeated:
                # Our first attempt may have succeeded and its answer been lost.
                present = self.get_versioned(key)
                if present is not None and present.data == data:
                    return present.version
        raise self._service.error(answer, key)

    def info(self, key: str) -> Entry | None:
        answer = self._service.properties(_checked(key), accept=(404,))
        if answer.status == 404 or answer.headers.get(_IS_FOLDER) == "true":
            return None
        if key.startswith(OBJECTS) and not _is_whole(answer, key):
            return None
        return Entry(key, answer.size_bytes, answer.modified_at)

    def list(self, prefix: str) -> Iterator[Entry]:
        return self._service.values(prefix, CONTENT_ID if area_of(prefix).is_plain else "")

    def folders(self, prefix: str) -> Sequence[str]:
        return self._service.folders(prefix)

    def in_the_way(self, key: str) -> Sequence[str]:
        return ()  # names are flat

    def delete(self, key: str, *, guard: Guard | None = None) -> None:
        # A request cannot check one blob and delete another; the caller's check must suffice.
        self._service.delete(_checked(key))

    def sweep(self, older_than_s: float) -> int:
        return 0  # the service deletes uncommitted blocks after a week

    def local_path(self, key: str) -> Path | None:
        return None

    def interrupt(self) -> None:
        self._transport.interrupts.interrupt()
        if self._pace is not None:
            self._pace.interrupt()

    def resume(self) -> None:
        self._transport.interrupts.resume()
        if self._pace is not None:
            self._pace.resume()

    def _put_whole(self, key: str, body: BlobBody, identity: str, *, replace: bool) -> bool:
        metadata = {CONTENT_ID: identity} if identity else {}
        answer = self._put_blob(key, body, ANY if replace else NEW, metadata)
        if answer.status < 400:
            return True
        if replace or answer.code not in ("BlobAlreadyExists", "ConditionNotMet"):
            raise self._service.error(answer, key)
        if key.startswith(OBJECTS) and identity:
            whole, etag = self._uploader.state(key)
            if whole != identity and etag is not None:  # an unfinished copy
                return self._put_blob(key, body, unchanged(etag), metadata).status < 400
        return False

    def _put_blob(
        self, key: str, body: BlobBody, condition: Mapping[str, Any], metadata: Mapping[str, str]
    ) -> BlobAnswer:
        return self._service.put_blob(key, body, condition, metadata, accept=(409, 412))

    def _making_container(self, act: Callable[[], _T]) -> _T:
        try:
            return act()
        except NotFound:  # writing requires only the container
            self._service.create_container()
        return act()


def _is_whole(answer: BlobAnswer, key: str) -> bool:
    """An unfinished copy names its predecessor; a node's mount writes no metadata."""
    content = answer.headers.get(_CONTENT_ID)
    return content == key.rpartition("/")[2] if content is not None else _COPIED_FROM not in answer.headers


def _checked(key: str) -> str:
    if not is_valid_key(key):
        raise SettingsError(f"{key!r} is not a valid key")
    return key


def _read(body: FileBody) -> bytes:
    try:
        with open_regular(body.path) as file:
            data = file.read(body.size_bytes + 1)
    except OSError as error:
        raise sending_error(error, body.path) from error
    if content_id(data) != body.content_id:
        raise changed_while_sent(body.path)
    return data


def _use_one_heap() -> None:
    """For all threads that begin later. With a heap per thread, memory that large values leave in one is of no use to
    another: sending 16 files of 24 MB and 2,500 small ones took 180 MB instead of 124. Threads that wait for a network
    lose no time by it."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
