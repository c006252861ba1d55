"""What a request sends: buffers that follow each other, without a copy of all of them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence

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
