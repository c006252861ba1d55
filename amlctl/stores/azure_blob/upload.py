"""Large values: only the blocks that are not there yet are sent, then the list of all of them.

A block counts as there when the service has it committed in an earlier version of the value, or uncommitted from
an upload that was cut off. An object takes the blocks of its predecessor by a server-side copy, which keeps them
with their ids; until its own list is committed it has no `content_id` in its metadata, and counts as missing.
"""

from __future__ import annotations

import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import BoundedSemaphore
from typing import Any, TypeVar

from amlctl.core.content_id import ContentHasher
from amlctl.errors import AmlctlError, Conflict, ServiceUnavailable
from amlctl.localfs.disk_errors import sending_error
from amlctl.stores.azure_blob.blocks import ID_LENGTH, MAX_BLOCKS, Block, block_id, block_id_of, block_size, cut
from amlctl.stores.azure_blob.direct import Body
from amlctl.stores.azure_blob.service import ANY, NEW, BlobService, unchanged
from amlctl.stores.azure_blob.window import BlockMemory, Window
from amlctl.stores.contract import Buffer, FileBody, always

CONTENT_ID = "content_id"
COPIED_FROM = "copied_from"
"""Names of metadata."""
_IN_MEMORY = 44 << 20
_PACK_BYTES = 80 << 20
"""A pack of the usual size may be under way as a whole: it is in memory anyway."""
_COPY_POLL_S = 0.1
_COPY_LONGEST_S = 300.0
_FILES_AT_ONCE = 6
"""Large files that are read at a time: their blocks fill the line, and each that is compared with what is there holds
some blocks besides those in the window."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Limits:
    """Bytes from which a value travels in blocks, smallest block, and blocks of one value at most.

    `pack_block_bytes`: a pack is never edited, so its blocks are as large as what a kill may cost, and few.
    """

    single_bytes: int = 8 << 20
    block_bytes: int = 4 << 20
    max_blocks: int = MAX_BLOCKS
    pack_block_bytes: int = 16 << 20


class Uploader:
    """Sends blocks of all values of a store over one pool, with at most `_IN_MEMORY` bytes of files in memory."""

    def __init__(self, service: BlobService, limits: Limits, pool: ThreadPoolExecutor) -> None:
        self._service = service
        self._limits = limits
        self._pool = pool
        self.window = Window(_IN_MEMORY)
        self._memory = BlockMemory(self.window)
        self._pack_window = Window(_PACK_BYTES)
        self._files = BoundedSemaphore(_FILES_AT_ONCE)

    def put_file(self, key: str, body: FileBody, *, replace: bool, with_md5: bool) -> bool:
        """A file of more than `single_bytes`. False where the whole value was there and is not replaced.

        Raises Conflict where the file is not what `body` says; nothing appears under `key` then.
        """
        committed, waiting, etag = self._service.block_lists(key)
        copied = None
        if etag is None and body.predecessor is not None and not body.is_sent_whole:
            copied = self.copy(body.predecessor, key, {COPIED_FROM: body.predecessor.rsplit("/", 1)[-1]})
            # Also where it failed: another machine may have made the same copy just now.
            committed, waiting, etag = self._service.block_lists(key)
        if etag not in (None, copied) and not replace:
            whole, etag = self.state(key)
            if whole == body.content_id:
                return False
        if any(len(block.id) != ID_LENGTH for block in waiting):
            self._service.recommit(key)
            committed, waiting, etag = self._service.block_lists(key)
        there = {block.id for block in committed} | {block.id for block in waiting}
        if body.is_sent_whole:
            there = set()  # a block is named by what it should be, not by what a disk made of it
        with self._files:
            blocks, md5 = self._send_file(key, body, committed, there, with_md5=with_md5)
        condition = ANY if replace else (unchanged(etag) if etag else NEW)
        return self._commit(key, blocks, condition, body.content_id, body.may_go_on, md5)

    def put_parts(self, key: str, parts: Sequence[Buffer], *, replace: bool) -> bool:
        """Parts in memory of more than `single_bytes` together, in blocks side by side: one connection is no line.

        False where the value was there and is not replaced.
        """
        _, waiting, etag = self._service.block_lists(key)
        # Azurite gives an ETag also where nothing but blocks without a list is there.
        if etag is not None and not replace and self.state(key)[1] is not None:
            return False
        if any(len(block.id) != ID_LENGTH for block in waiting):
            waiting = []
            self._service.recommit(key)
            self._service.delete(key)
        # What replaces a value does so since that was damaged: then neither are its blocks trusted.
        there = set() if replace else {block.id for block in waiting}
        ids: list[str] = []
        jobs: list[Future[None]] = []
        try:
            for body in _grouped(parts, self._limits.pack_block_bytes):
                ids.append(block_id_of(body.parts))
                if ids[-1] not in there:
                    self._pack_window.take(body.size_bytes)
                    give_back = functools.partial(self._pack_window.give_back, body.size_bytes)
                    jobs.append(self._send_block(key, ids[-1], body, _nobody, give_back))
                    raise_early(jobs)
            for job in jobs:
                job.result()
        except BaseException:
            settle(jobs)
            raise
        return self._commit(key, ids, ANY if replace else NEW, "", always)

    def state(self, key: str) -> tuple[str, str | None]:
        """`content_id` of a finished value (empty: unfinished) and its ETag."""
        answer = self._service.properties(key, accept=(404,))
        if answer.status == 404:
            return "", None
        return answer.headers.get(f"x-ms-meta-{CONTENT_ID}", ""), answer.headers.get("etag")

    def copy(self, source: str, key: str, metadata: Mapping[str, str], *, replace: bool = False) -> str | None:
        """Make `key` from the value of `source` within the service; its ETag, or None where that cannot be.

        Without `metadata` it keeps that of the source.
        """
        try:
            answer = self._service.copy(source, key, ANY if replace else NEW, metadata, accept=(404, 409, 412))
        except AmlctlError:
            # A copy only saves bytes: without the right to read the source, all of them are sent.
            return None
        if answer.status >= 400:
            return None
        status, etag = answer.headers.get("x-ms-copy-status", ""), answer.headers.get("etag")
        until = time.monotonic() + _COPY_LONGEST_S
        while status == "pending" and time.monotonic() < until:
            time.sleep(_COPY_POLL_S)
            found = self._service.properties(key)
            status, etag = found.headers.get("x-ms-copy-status", ""), found.headers.get("etag")
        if status not in ("success", ""):
            raise ServiceUnavailable(f"the copy of {source} in the store ended as {status}", hint="run it again")
        return etag

    def _send_file(
        self, key: str, body: FileBody, old: list[Block], there: set[str], *, with_md5: bool
    ) -> tuple[list[str], bytes]:
        """Ids of all blocks in order, once those that were missing have arrived, and the MD5 of the file."""
        hasher, md5 = ContentHasher(), hashlib.md5(usedforsecurity=False)
        ids: list[str] = []
        jobs: list[Future[None]] = []
        try:
            with body.path.open("rb", buffering=0) as file:
                descriptor = file.fileno()

                def read(offset: int, size: int) -> bytes:
                    return os.pread(descriptor, size, offset)

                distance = block_size(body.size_bytes, smallest=self._limits.block_bytes)
                for size in cut(read, body.size_bytes, old, distance=distance, max_blocks=self._limits.max_blocks):
                    with self._memory.block(size) as block:  # before it is read: that bounds the memory
                        data = block.data[: file.readinto(block.data)]
                        hasher.update(data)
                        if with_md5:
                            md5.update(data)
                        ids.append(block_id(data))
                        if len(data) != size:
                            break
                        if ids[-1] in there:
                            body.on_bytes(size)
                            continue
                        there.add(ids[-1])
                        give_back = self._memory.hand_over(block)
                        jobs.append(self._send_block(key, ids[-1], Body([data]), body.on_bytes, give_back))
                        raise_early(jobs)
            for job in jobs:
                job.result()
        except OSError as error:
            settle(jobs)
            raise sending_error(error, body.path) from error
        except BaseException:
            settle(jobs)
            raise
        if hasher.content_id() != body.content_id:
            raise Conflict(f"{body.path} changed while it was sent", hint="run the same command again")
        return ids, md5.digest() if with_md5 else b""

    def _send_block(
        self, key: str, identity: str, body: Body, on_bytes: Callable[[int], None], give_back: Callable[[], None]
    ) -> Future[None]:
        """`give_back`: called once the block has arrived, or never will."""
        try:
            job = self._pool.submit(self._put_block, key, identity, body, on_bytes)
        except BaseException:
            give_back()
            raise
        job.add_done_callback(lambda _: give_back())
        return job

    def _put_block(self, key: str, identity: str, body: Body, on_bytes: Callable[[int], None]) -> None:
        self._service.put_block(key, identity, body)
        on_bytes(body.size_bytes)

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
        if answer.status == 400 and answer.code != "InvalidBlockList":  # else someone else has taken the blocks away
            raise self._service.error(answer, key)
        whole, etag = self.state(key)
        if etag is not None and whole == content:
            # Someone else, or our own try whose answer was lost, has finished the same value.
            return answer.was_repeated
        raise Conflict(f"{key} in the store was changed by someone else", hint="run the same command again")


def raise_early(jobs: list[Future[_T]]) -> None:
    """What has failed already need not wait for the rest of the file."""
    while jobs and jobs[0].done():
        jobs.pop(0).result()


def _grouped(parts: Sequence[Buffer], size_bytes: int) -> Iterator[Body]:
    """Just so many bytes each; the last has the rest. However the parts are cut, the same bytes are grouped alike: a
    pack that was killed on its way is built anew, and not always from the same reads."""
    group: list[Buffer] = []
    missing = size_bytes
    for part in parts:
        rest = memoryview(part)
        while len(rest) >= missing:
            yield Body([*group, rest[:missing]])
            group, rest, missing = [], rest[missing:], size_bytes
        if rest:
            group.append(rest)
            missing -= len(rest)
    if group:
        yield Body(group)


def _nobody(size_bytes: int) -> None:
    """Nobody asks how far a pack is."""


def settle(jobs: list[Future[_T]]) -> None:
    """None begins or goes on any more: who interrupts a store may resume it when its callers have ended."""
    for job in jobs:
        job.cancel()
    for job in jobs:
        if not job.cancelled():
            job.exception()
