"""Large values: only missing blocks are sent, then the list of all of them.

A block exists if the service has it committed in an earlier version of the value, or uncommitted from an upload that
was cut off. An object gets the blocks of its predecessor by a server-side copy, which keeps them with their ids; until
its own list is committed its metadata lacks `content_id`, and it counts as missing.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from threading import BoundedSemaphore, Condition
from typing import Any, TypeVar

from amlctl.core.content_id import ContentHasher
from amlctl.core.message import AGAIN
from amlctl.errors import AmlctlError, Conflict, NotFound, ServiceUnavailable
from amlctl.localfs.disk_errors import changed_while_sent, sending_error
from amlctl.stores.azure_blob.answer import BlobAnswer
from amlctl.stores.azure_blob.blocks import ID_LENGTH, MAX_BLOCKS, Block, block_id, block_id_of, block_size, cut
from amlctl.stores.azure_blob.direct import BlobBody
from amlctl.stores.azure_blob.service import ANY, NEW, BlobService, unchanged
from amlctl.stores.contract import Buffer, Buffers, FileBody, OnBytes, always, unobserved

CONTENT_ID = "content_id"
COPIED_FROM = "copied_from"
"""Names of metadata."""
_FILE_BYTES = 24 << 20
"""Of files in memory, and under way, at a time; what a kill may lose on a slow line."""
_PACK_BYTES = 48 << 20
"""Of packs under way at a time: three blocks."""
_COPY_POLL_S = 0.1
_COPY_LONGEST_S = 3600.0
"""Of a large value that others have put into the container; our own are copied within seconds."""
_FILES_AT_ONCE = 6
"""Large files that are read at a time: their blocks fill the line, and comparing one with its old blocks takes memory
for some blocks of its own."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Limits:
    """Bytes from which a value is sent in blocks, smallest block, and maximal number of blocks of a value.

    `pack_block_bytes`: packs are never edited, so their blocks may be as large as what a killed upload may lose.
    """

    single_bytes: int = 8 << 20
    block_bytes: int = 4 << 20
    max_blocks: int = MAX_BLOCKS
    pack_block_bytes: int = 16 << 20


DEFAULT_LIMITS = Limits()


class ByteBudget:
    """At most that many bytes at a time; a part that is larger waits until all else is free. Thread-safe."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._used = 0
        self._changed = Condition()

    def take(self, size_bytes: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._used == 0 or self._used + size_bytes <= self._most_bytes)
            self._used += size_bytes

    def give_back(self, size_bytes: int) -> None:
        with self._changed:
            self._used -= size_bytes
            self._changed.notify_all()

    @contextmanager
    def taken(self, size_bytes: int) -> Iterator[None]:
        self.take(size_bytes)
        try:
            yield
        finally:
            self.give_back(size_bytes)

    def submit(self, pool: ThreadPoolExecutor, size_bytes: int, act: Callable[[], _T]) -> Future[_T]:
        """Run `act` in the pool; what was taken before is given back when it has ended, or is canceled."""
        try:
            job = pool.submit(act)
        except BaseException:
            self.give_back(size_bytes)
            raise
        job.add_done_callback(lambda _: self.give_back(size_bytes))
        return job


class Jobs(list[Future[_T]]):
    """The parts of one value under way. The first error cancels the rest and waits until nothing is running.

    `on_result` gets the results in the order of the parts, in the thread that adds them."""

    def __init__(self, on_result: Callable[[_T], object] = lambda result: None) -> None:
        self._on_result = on_result

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Waits for all jobs at the end of the block. Raises the first error."""
        try:
            yield
            for job in self:
                self._on_result(job.result())
        except BaseException:
            for job in self:
                job.cancel()
            for job in self:
                if not job.cancelled():
                    job.exception()
            raise

    def add(self, job: Future[_T]) -> None:
        """Raises the error of an earlier job, so that a failed upload does not read the rest of a file."""
        self.append(job)
        while self and self[0].done():
            self._on_result(self.pop(0).result())


class Uploader:
    """Sends the blocks of all values of a store with one pool."""

    def __init__(self, service: BlobService, limits: Limits, pool: ThreadPoolExecutor) -> None:
        self._service = service
        self._limits = limits
        self._pool = pool
        self.budget = ByteBudget(_FILE_BYTES)
        self._pack_budget = ByteBudget(_PACK_BYTES)
        self._files = BoundedSemaphore(_FILES_AT_ONCE)

    def put_file(
        self, key: str, body: FileBody, *, replace: bool, with_md5: bool, on_bytes: OnBytes = unobserved
    ) -> bool:
        """A file of more than `single_bytes`. False if the whole value existed and is not replaced.

        Raises Conflict if the file is not what `body` says; then nothing appears under `key`.
        """
        committed, waiting, etag = self._service.block_lists(key)
        copied = None
        if etag is None and body.predecessor is not None and not body.is_sent_whole:
            copied = self.copy_instead(body.predecessor, key, {COPIED_FROM: body.predecessor.rsplit("/", 1)[-1]})
            # Also after a failure: another machine may have made the same copy just now.
            committed, waiting, etag = self._service.block_lists(key)
        if etag not in (None, copied) and not replace:
            whole, etag = self.state(key)
            if whole == body.content_id:
                return False
        if any(len(block.id) != ID_LENGTH for block in waiting):
            self._service.recommit(key)
            committed, waiting, etag = self._service.block_lists(key)
        existing = {block.id for block in (*committed, *waiting)}
        if body.is_sent_whole:
            existing = set()  # a block is named by its expected content, not by what a faulty disk made of it
        with self._files:
            blocks, md5 = self._send_file(key, body, committed, existing, on_bytes, with_md5=with_md5)
        condition = ANY if replace else (unchanged(etag) if etag else NEW)
        return self._commit(key, blocks, condition, body.content_id, body.may_go_on, md5)

    def put_parts(self, key: str, parts: Sequence[Buffer], *, replace: bool, on_bytes: OnBytes = unobserved) -> bool:
        """Parts in memory of more than `single_bytes` in total, in parallel blocks: a single connection is too slow.

        False if the value existed and is not replaced.
        """
        _, waiting, etag = self._service.block_lists(key)
        # Azurite returns an ETag also for uncommitted blocks alone.
        if etag is not None and not replace and self.state(key)[1] is not None:
            return False
        if any(len(block.id) != ID_LENGTH for block in waiting):
            waiting = []
            self._service.recommit(key)
            self._service.delete(key)
        # A value is replaced because it is damaged, so its blocks are not trusted.
        existing = set() if replace else {block.id for block in waiting}
        ids: list[str] = []
        released = 0

        def release(size_bytes: int) -> None:
            nonlocal released
            if isinstance(parts, Buffers) and not existing:
                released += size_bytes
                parts.release(size_bytes)

        jobs = Jobs[int](release)
        try:
            with jobs.settled():
                for body in _grouped(parts, self._limits.pack_block_bytes):
                    ids.append(block_id_of(body.parts))
                    if ids[-1] in existing:
                        on_bytes(body.size_bytes)
                        continue
                    body.on_bytes = on_bytes
                    self._pack_budget.take(body.size_bytes)
                    act = partial(self._put_block, key, ids[-1], body)
                    jobs.add(self._pack_budget.submit(self._pool, body.size_bytes, act))
            return self._commit(key, ids, ANY if replace else NEW, "", always)
        except NotFound as error:
            if released:  # the caller would make the container and send the same parts again
                raise Conflict(f"{error.message} any more", hint=AGAIN) from error
            raise

    def _put_block(self, key: str, identity: str, body: BlobBody) -> int:
        self._service.put_block(key, identity, body)
        return body.size_bytes

    def state(self, key: str) -> tuple[str, str | None]:
        """`content_id` of a finished value (empty for an unfinished one) and its ETag."""
        answer = self._service.properties(key, accept=(404,))
        if answer.status == 404:
            return "", None
        return answer.headers.get(f"x-ms-meta-{CONTENT_ID}", ""), answer.headers.get("etag")

    def copy(self, source: str, key: str) -> None:
        """Copy a value within the service, over what is there. Raises what the service says."""
        copied(self._service, self._service.copy(source, key, ANY, {}), source, key)

    def copy_instead(self, source: str, key: str, metadata: Mapping[str, str], *, replace: bool = False) -> str | None:
        """Copy a value within the service instead of sending it; its ETag, or None if that is not possible.

        Without `metadata` it keeps that of the source.
        """
        try:
            answer = self._service.copy(source, key, ANY if replace else NEW, metadata, accept=(404, 409, 412))
        except AmlctlError:
            return None  # a copy only saves bytes: without the right to read the source, all of them are sent
        return None if answer.status >= 400 else copied(self._service, answer, source, key)

    def _send_file(
        self, key: str, body: FileBody, old: list[Block], existing: set[str], on_bytes: OnBytes, *, with_md5: bool
    ) -> tuple[list[str], bytes]:
        """Ids of all blocks in order, once the missing ones have arrived, and the MD5 of the file."""
        hasher, md5 = ContentHasher(), hashlib.md5(usedforsecurity=False)
        ids: list[str] = []
        jobs = Jobs[BlobAnswer]()
        try:
            with jobs.settled(), body.path.open("rb", buffering=0) as file:
                descriptor = file.fileno()

                def read(offset: int, size: int) -> bytes:
                    return os.pread(descriptor, size, offset)

                distance = block_size(body.size_bytes, smallest=self._limits.block_bytes)
                for size in cut(read, body.size_bytes, old, distance=distance, max_blocks=self._limits.max_blocks):
                    self.budget.take(size)  # before reading: that bounds the memory
                    is_given_away = False
                    try:
                        data = file.read(size)
                        hasher.update(data)
                        if with_md5:
                            md5.update(data)
                        ids.append(block_id(data))
                        if len(data) != size:
                            break
                        if ids[-1] in existing:
                            on_bytes(size)
                            continue
                        existing.add(ids[-1])
                        is_given_away = True
                        act = partial(self._service.put_block, key, ids[-1], BlobBody([data], on_bytes=on_bytes))
                        jobs.add(self.budget.submit(self._pool, size, act))
                    finally:
                        if not is_given_away:
                            self.budget.give_back(size)
        except OSError as error:
            raise sending_error(error, body.path) from error
        if hasher.hexdigest() != body.content_id:
            raise changed_while_sent(body.path)
        return ids, md5.digest() if with_md5 else b""

    def _commit(
        self,
        key: str,
        ids: list[str],
        condition: Mapping[str, Any],
        content: str,
        may_go_on: Callable[[], None],
        md5: bytes = b"",
    ) -> bool:
        metadata = {CONTENT_ID: content} if content else {}
        answer = self._service.commit(
            key, ids, condition, metadata, md5=md5, accept=(400, 409, 412), may_go_on=may_go_on
        )
        if answer.status < 400:
            return True
        if answer.status == 400 and answer.code != "InvalidBlockList":  # else someone else has dropped the blocks
            raise self._service.error(answer, key)
        whole, etag = self.state(key)
        if etag is not None and whole == content:
            # Someone else, or our own attempt whose answer was lost, has finished the same value.
            return answer.was_repeated
        raise Conflict(f"{key} in the store was changed by someone else", hint=AGAIN)


def copied(service: BlobService, answer: BlobAnswer, source: str, key: str) -> str | None:
    """The ETag, once the copy that `answer` is about has ended."""
    until = time.monotonic() + _COPY_LONGEST_S
    while (status := answer.headers.get("x-ms-copy-status", "")) == "pending" and time.monotonic() < until:
        time.sleep(_COPY_POLL_S)
        answer = service.properties(key)
    if status not in ("success", ""):
        raise ServiceUnavailable(f"the copy of {source} in the store ended as {status}", hint="run it again")
    return answer.headers.get("etag")


def _grouped(parts: Sequence[Buffer], size_bytes: int) -> Iterator[BlobBody]:
    """Exactly that many bytes each; the last has the rest. Equal bytes are grouped equally however the parts are cut:
    a pack whose upload was killed may be rebuilt from other reads."""
    group: list[Buffer] = []
    missing = size_bytes
    for part in parts:
        rest = memoryview(part)
        while len(rest) >= missing:
            yield BlobBody([*group, rest[:missing]])
            group, rest, missing = [], rest[missing:], size_bytes
        if rest:
            group.append(rest)
            missing -= len(rest)
    if group:
        yield BlobBody(group)
