"""Logs of processes, from files on the node to append blobs."""

from __future__ import annotations

from pathlib import Path

from .storage import ARTIFACTS, Storage

_BLOCK = 4 << 20
_HELD_LINES = 3


class LogPump:
    """One log. `push` sends what is new; it and `finish` are called from one thread at a time."""

    def __init__(self, source: Path, storage: Storage, blob: str, *, continues: bool) -> None:
        self._source = source
        self._client = storage.blob(ARTIFACTS, blob)
        self._sent = 0
        if not (continues and self._client.exists()):
            self._client.create_append_blob()

    def push(self, *, holds_last_lines: bool = False) -> None:
        """With `holds_last_lines` the last three lines stay on the node."""
        with self._source.open("rb") as file:
            file.seek(self._sent)
            while data := file.read(_BLOCK):
                if holds_last_lines:
                    data = data[: _without_last_lines(data)]
                    if not data:
                        return
                self._client.append_block(data, length=len(data))
                self._sent += len(data)
                file.seek(self._sent)


def _without_last_lines(data: bytes) -> int:
    end = len(data)
    for _ in range(_HELD_LINES + 1):
        end = data.rfind(b"\n", 0, end)
        if end < 0:
            return 0
    return end + 1
