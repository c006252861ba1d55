"""The `Store` on a container of Azure Blob Storage: one block blob a key, conditions by ETag."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from amlctl.azure_access.transport import Read, Transport
from amlctl.core.content_id import content_id
from amlctl.core.events import EventSink, null_sink
from amlctl.core.store_keys import OBJECTS, area_of
from amlctl.errors import Conflict, NotFound, SettingsError
from amlctl.localfs.disk_errors import disk_error, sending_error
from amlctl.stores.azure_blob.address import BlobAddress, parse_address
from amlctl.stores.azure_blob.answer import Answer, check_origin
from amlctl.stores.azure_blob.credentials import Credential, find_credential
from amlctl.stores.azure_blob.direct import Body
from amlctl.stores.azure_blob.service import ANY, NAME, NEW, BlobService, unchanged
from amlctl.stores.azure_blob.upload import CONTENT_ID, COPIED_FROM, Limits, Uploader, raise_early, settle
from amlctl.stores.azure_blob.window import Window, use_one_heap
from amlctl.stores.contract import Body as StoreBody
from amlctl.stores.contract import Entry, FileBody, Guard, Parts, Traffic, Versioned, is_valid_key
from amlctl.stores.wrappers import Pace

_CONTENT_ID = f"x-ms-meta-{CONTENT_ID}"
_COPIED_FROM = f"x-ms-meta-{COPIED_FROM}"
_IS_FOLDER = "x-ms-meta-hdi_isfolder"
"""What mounts and hierarchical accounts give to an empty blob that stands for a folder."""
_ASK_FIRST = 1 << 20
"""Bytes from which a request that asks is cheaper than sending what is there already."""
_RANGE = 8 << 20
_READ = 1 << 20
_WORKERS = 16
"""Blocks and ranges under way, which need memory."""
_CONCURRENCY = 48
"""Small values under way, which wait for the network most of the time."""
_T = TypeVar("_T")


def open_blob_store(
    url: str,
    variables: Mapping[str, str],
    *,
    workers: int | None = None,
    limits: Limits | None = None,
    pace: Pace | None = None,
    credential: Credential | None = None,
    prefix: str | None = None,
    sleep: Callable[[float], object] | None = None,
    tell: EventSink = null_sink,
) -> AzureBlobStore:
    """Raises SettingsError. Nothing is sent, and nobody logged in, before the first call.

    `prefix` takes the place of the URL's. Without a `credential` it is the one that the URL, the variables or the login
    give. `tell` gets an event for each request that has to be repeated.
    """
    address, sas = parse_address(url)
    if prefix is not None:
        address = replace(address, prefix=prefix)
    use_one_heap()
    credential = credential or find_credential(address, sas, variables)
    return AzureBlobStore(address, credential, variables, workers, limits or Limits(), pace, sleep, tell)


class AzureBlobStore:
    """Thread-safe. `traffic.requests` counts every HTTP request, also repeated ones.

    With `workers`, at most so many requests are under way at a time.
    Writes make the container where it is missing. Memory: `workers` blocks or pieces of ranges.
    """

    def __init__(
        self,
        address: BlobAddress,
        credential: Credential,
        variables: Mapping[str, str],
        workers: int | None,
        limits: Limits,
        pace: Pace | None,
        sleep: Callable[[float], object] | None,
        tell: EventSink,
    ) -> None:
        self._address = address
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
        self._arriving = Window((workers or _WORKERS) * _RANGE)

    def close(self) -> None:
        """Let the connections go. The store may not be used afterwards."""
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

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            return b""
        if start == 0 and length is None:
            return self._service.get(_checked(key)).data
        answer = self._service.get_range(_checked(key), start, length, accept=(416,))
        return b"" if answer.status == 416 else answer.data

    def get_versioned(self, key: str) -> Versioned | None:
        answer = self._service.get(_checked(key), accept=(404,))
        return None if answer.status == 404 else Versioned(answer.data, answer.etag)

    def download(self, key: str, target: Path, parts: Parts | None = None) -> int:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if parts is None else 0))
        parts = parts or _NoParts()
        try:
            if parts.has(0, 1):
                first = self._service.properties(_checked(key))
                size = first.size_bytes
            else:
                first = self._get_range(_checked(key), target, descriptor, 0, "", parts)
                if first.status == 416:
                    os.ftruncate(descriptor, 0)
                    return 0
                size = first.size_bytes
            etag = first.etag
            starts = [start for start in range(_RANGE, size, _RANGE) if not parts.has(start, 1)]
            jobs: list[Future[Answer]] = []
            try:
                for start in starts:
                    jobs.append(self._range_job(key, target, descriptor, start, etag, parts))
                    raise_early(jobs)
                for job in jobs:
                    job.result()
            except BaseException:
                settle(jobs)  # none writes to the descriptor any more when it is closed
                raise
            os.ftruncate(descriptor, size)  # what an earlier value had beyond
            return size
        finally:
            os.close(descriptor)

    def put(self, key: str, body: StoreBody, *, replace: bool = False) -> bool:
        _checked(key)
        if isinstance(body, FileBody):
            if body.same_as is not None and self._uploader.copy(body.same_as, key, {}, replace=replace) is not None:
                return True
            if body.size_bytes > self._limits.single_bytes:
                with_md5 = area_of(key).is_plain
                return self._making_container(
                    lambda: self._uploader.put_file(key, body, replace=replace, with_md5=with_md5)
                )
            with self._uploader.window.taken(body.size_bytes):
                body.may_go_on()  # after what may have been a long wait
                return self._put_small(key, Body([_read(body)], body.may_go_on), body.content_id, replace=replace)
        parts = [body] if isinstance(body, bytes) else body
        whole = Body(parts)
        if whole.size_bytes > self._limits.single_bytes:
            return self._making_container(lambda: self._uploader.put_parts(key, parts, replace=replace))
        return self._put_small(key, whole, "", replace=replace)

    def _put_small(self, key: str, sent: Body, identity: str, *, replace: bool) -> bool:
        if not replace and sent.size_bytes > _ASK_FIRST and self.info(key) is not None:
            return False
        return self._making_container(lambda: self._put_whole(key, sent, identity, replace=replace))

    def swap(self, key: str, data: bytes, *, expected: str | None) -> str:
        _checked(key)
        condition = NEW if expected is None else unchanged(expected)
        # A lease is renewed by it, also by who is in the middle of sending something else.
        with self._service.urgently():
            answer = self._making_container(lambda: self._put_blob(key, Body([data]), condition, {}))
            if answer.status < 400:
                return answer.etag
            if answer.was_repeated:
                # The answer to our first try may have been lost: then the value is ours already.
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
        metadata = CONTENT_ID if area_of(prefix).is_plain else ""
        marker = ""
        while True:
            page, marker = self._service.list_page(prefix, marker, metadata)
            for key, size_bytes, modified_at, said in page:
                yield Entry(key, size_bytes, modified_at, said)
            if not marker:
                return

    def in_the_way(self, key: str) -> Sequence[str]:
        return ()  # names are flat

    def delete(self, key: str, *, guard: Guard | None = None) -> None:
        # No request can look at one blob and delete another one: what the caller has checked has to do.
        self._service.delete(_checked(key))

    def sweep(self, older_than_s: float) -> int:
        return 0  # blocks without a list go by themselves, after a week

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

    def _put_whole(self, key: str, body: Body, identity: str, *, replace: bool) -> bool:
        metadata = {CONTENT_ID: identity} if identity else {}
        answer = self._put_blob(key, body, ANY if replace else NEW, metadata)
        if answer.status < 400:
            return True
        if replace or answer.code not in ("BlobAlreadyExists", "ConditionNotMet"):
            raise self._service.error(answer, key)
        if key.startswith(OBJECTS) and identity:
            whole, etag = self._uploader.state(key)
            if whole != identity and etag is not None:  # a copy that was never finished
                return self._put_blob(key, body, unchanged(etag), metadata).status < 400
        return False

    def _put_blob(self, key: str, body: Body, condition: Mapping[str, Any], metadata: Mapping[str, str]) -> Answer:
        return self._service.put_blob(key, body, condition, metadata, accept=(409, 412))

    def _range_job(
        self, key: str, target: Path, descriptor: int, start: int, etag: str, parts: Parts
    ) -> Future[Answer]:
        self._arriving.take(_RANGE)
        try:
            job = self._pool.submit(self._get_range, key, target, descriptor, start, etag, parts)
        except BaseException:
            self._arriving.give_back(_RANGE)
            raise
        job.add_done_callback(lambda _: self._arriving.give_back(_RANGE))
        return job

    def _get_range(self, key: str, target: Path, descriptor: int, start: int, etag: str, parts: Parts) -> Answer:
        received = [0]

        def take(read: Read) -> int:
            received[0] = _write_to(descriptor, start, read, target)
            return received[0]

        accept = () if etag else (416,)
        answer = self._service.get_range(key, start, _RANGE, etag, accept=accept, sink=take)
        if received[0]:
            parts.arrived(start, received[0])
        return answer

    def _making_container(self, act: Callable[[], _T]) -> _T:
        try:
            return act()
        except NotFound:  # a value that is written needs nothing but its container
            self._service.create_container()
        return act()


def _is_whole(answer: Answer, key: str) -> bool:
    """An unfinished copy of a predecessor says what it was copied from; a node's mount writes no metadata at all."""
    content = answer.headers.get(_CONTENT_ID)
    return content == key.rpartition("/")[2] if content is not None else _COPIED_FROM not in answer.headers


def _checked(key: str) -> str:
    if not is_valid_key(key):
        raise SettingsError(f"{key!r} is not a key of a store")
    return key


def _read(body: FileBody) -> bytes:
    try:
        data = body.path.read_bytes()
    except OSError as error:
        raise sending_error(error, body.path) from error
    if content_id(data) != body.content_id:
        raise Conflict(f"{body.path} changed while it was sent", hint="run the same command again")
    return data


class _NoParts:
    """A file that has nothing yet, and nobody who asks."""

    def has(self, start: int, length: int) -> bool:
        return False

    def arrived(self, start: int, length: int) -> None:
        """Nobody asks."""


def _write_to(descriptor: int, start: int, read: Read, target: Path) -> int:
    """After an error of the target's disk the service is not asked again. Raises what `disk_error` says."""
    at = start
    while part := read(_READ):
        view = memoryview(part)
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
