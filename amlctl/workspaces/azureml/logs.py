"""Logs by offset, from the signed addresses of run details: one range for new bytes.

The main log is that of rank 0. While the image is being built, the builder's log replaces it, and a reader continues
in the main log without a gap. A run that is started again on other nodes may get files of its own for each attempt
(`user_logs/retry_001/std_log.txt`): together they are one log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from amlctl.azure_access.http import LONGEST_NUMBER
from amlctl.core.job import log_names
from amlctl.core.message import Command, Message
from amlctl.core.run import RunRecord
from amlctl.errors import NotFound, RightsError, ServiceUnavailable
from amlctl.parallel import in_parallel
from amlctl.workspaces.azureml.clients import Answer, Exchange
from amlctl.workspaces.azureml.looks import AzureMLTiming, Look, Looks
from amlctl.workspaces.contract import LogChunk

USER_LOGS = "user_logs/"
_BUILD_LOG = re.compile(r"azureml-logs/\d*_?image_build_log\.txt")
_SHOWN = re.compile(r"user_logs/.+|azureml-logs/.+\.txt")
_MAIN = re.compile(r"user_logs/(?:retry_\d+/)?std_log.*\.txt")
_RETRY = re.compile(r"(?<=^user_logs/)retry_(\d+)/")
_ZEROS = re.compile(r"(?<=_)0+(?=\d)")
_WORKER = re.compile(r"std_log_node_(\d+)_worker")
_OLD_MAIN = re.compile(r"azureml-logs/\d+_driver_log.*\.txt")
_PART_BYTES = 1 << 20
_REFUSED = (401, 403)
"""Of a signed address that has expired, or is not valid here."""
PARALLEL_LOGS = 16
"""Of one run, requested in parallel."""


def names_of(record: RunRecord, files: Mapping[str, str]) -> list[str]:
    """The main log, then further ranks, then all else. Expected logs are named before they exist."""
    shown = sorted({_log_of(key) for key in files if _SHOWN.fullmatch(key)}, key=_order)
    mains = [key for key in shown if _MAIN.fullmatch(key) or _OLD_MAIN.fullmatch(key)]
    expected = [] if mains else [USER_LOGS + name for name in log_names(record.spec.process_group.world_size)]
    if record.is_final and not mains and shown:
        expected = []  # it never started
    return [key.removeprefix(USER_LOGS) for key in dict.fromkeys([*mains, *expected, *shown])]


def _log_of(key: str) -> str:
    """The log that a file is a part of, numbered as in `log_names`. Azure ML also has `std_log_process_03.txt` if there
    are many processes, and `std_log_node_03_worker.txt` for TensorFlow."""
    if _MAIN.fullmatch(key) is None:
        return key
    return _WORKER.sub(r"std_log_process_\1", _ZEROS.sub("", _RETRY.sub("", key)))


def _order(key: str) -> tuple[bool, list[int], str]:
    return (_MAIN.fullmatch(key) is None, [int(number) for number in re.findall(r"\d+", key)], key)


@dataclass
class _Stream:
    """The meaning of a reader's offsets: the first byte of the first file has the offset `base`, and `before` is the
    part of the builder's log that was shown. `sizes` are those of files of earlier attempts, which no longer grow."""

    before: bytes = b""
    base: int = 0
    is_building: bool = False
    sizes: dict[str, int] = field(default_factory=dict)


class Logs:
    """Thread-safe for different logs."""

    def __init__(self, exchange: Exchange, looks: Looks, timing: AzureMLTiming) -> None:
        self._exchange = exchange
        self._looks = looks
        self._timing = timing
        self._streams: dict[tuple[str, str | None], _Stream] = {}
        self._ahead: dict[tuple[str, str | None], tuple[int, bytes]] = {}
        self._settled: set[tuple[str, str]] = set()

    def read(self, record: RunRecord, look: Look, name: str | None, cursor: int, *, is_settled: bool) -> LogChunk:
        """The bytes after `cursor`. Final once the run has ended and nothing has arrived for a while.

        `is_settled`: the run ended so long ago that nothing will arrive. Raises NotFound (no log of that name).
        """
        stream = self._streams.setdefault((record.run, name), _Stream())
        data = self._next(record, look, name, stream, cursor)
        if data or not record.is_final:
            return LogChunk(data, cursor + len(data), False)
        key = self._files(record, look, name, stream)[-1]
        if is_settled or (record.run, key) in self._settled:
            return LogChunk(b"", cursor, True)
        # One pause serves all logs of the run: those of further ranks are read next.
        others = self._sizes(record.run, look, key)
        self._timing.sleep(self._timing.settle_s)
        look = self._looks.at(record.run) or look
        now = self._sizes(record.run, look, key)
        self._settled |= {(record.run, other) for other, size in others.items() if now.get(other) == size}
        data = self._next(record, look, name, stream, cursor)
        if not data:
            self._settled.add((record.run, key))
        return LogChunk(data, cursor + len(data), not data)

    def end(self, record: RunRecord, look: Look, name: str | None) -> int | None:
        """The log's size now; None while the builder's log replaces it, or no log exists. Raises NotFound."""
        stream = self._streams.setdefault((record.run, name), _Stream())
        *earlier, key = self._files(record, look, name, stream)
        url = look.log_files.get(key)
        if url is None or stream.is_building or stream.before:
            return None
        _, size = self._range(record.run, key, url, 0, 1)
        return stream.base + sum(self._size(record.run, look, one, stream) for one in earlier) + size

    def has_more(self, record: RunRecord, look: Look, name: str | None, cursor: int) -> bool:
        """Whether `read` would return bytes; they are kept for it."""
        stream = self._streams.setdefault((record.run, name), _Stream())
        data = self._next(record, look, name, stream, cursor)
        if data:
            self._ahead[record.run, name] = (cursor, data)
        return bool(data)

    def _next(self, record: RunRecord, look: Look, name: str | None, stream: _Stream, cursor: int) -> bytes:
        ahead = self._ahead.pop((record.run, name), None)
        if ahead is not None and ahead[0] == cursor:
            return ahead[1]
        files = self._files(record, look, name, stream)
        if cursor < len(stream.before):
            # A reader that starts again gets all there is, not the builder's log alone.
            start = stream.before[cursor:]
            if stream.is_building:
                return start
            return start + self._new(record.run, look, files, stream, len(stream.before))
        data = self._new(record.run, look, files, stream, cursor)
        if stream.is_building and cursor == len(stream.before):
            stream.before += data
        return data

    def _new(self, run: str, look: Look, files: Sequence[str], stream: _Stream, cursor: int) -> bytes:
        if cursor < stream.base:
            stream.base = len(stream.before)  # earlier bytes are lost: the log was rewritten
        *earlier, key = files
        base = stream.base
        for one in earlier:
            size = self._size(run, look, one, stream)
            if cursor < base + size:
                return self._range(run, one, look.log_files[one], cursor - base)[0]
            base += size
        url = look.log_files.get(key)
        if url is None:
            return b""
        data, size = self._range(run, key, url, cursor - base)
        if size < cursor - base:
            stream.base += cursor - base  # rewritten: from its beginning
            data, _ = self._range(run, key, url, 0)
        return data

    def _size(self, run: str, look: Look, key: str, stream: _Stream) -> int:
        """Of a file of an earlier attempt."""
        if key not in stream.sizes:
            _, stream.sizes[key] = self._range(run, key, look.log_files[key], 0, 1)
        return stream.sizes[key]

    def _files(self, record: RunRecord, look: Look, name: str | None, stream: _Stream) -> Sequence[str]:
        """Those of the log, the current one last; here the builder's log is replaced by the main one. Raises
        NotFound."""
        files = look.log_files
        names = names_of(record, files)
        if name is not None:
            if name not in names:
                raise NotFound(f"run {record.run} has no log {name!r}", hint=f"available: {', '.join(names)}")
            return _files_of(name, files)
        main, build = _files_of(names[0], files), _build_log(files)
        if main[-1] in files or record.is_final:
            if stream.is_building:  # the rest of its log, or all of it if it was rewritten
                shown = stream.before[stream.base :]
                whole = self._whole(record.run, build or "", files)
                stream.before += whole[len(shown) :] if whole.startswith(shown) else whole
                stream.base = len(stream.before) - (len(whole) if main == [build] else 0)
                stream.is_building = False
            return main
        if build is None:
            return main
        stream.is_building = True
        return [build]

    def _sizes(self, run: str, look: Look, but: str) -> dict[str, int]:
        """Of the other logs that may still grow."""
        keys = [
            key for key in look.log_files if _MAIN.fullmatch(key) and key != but and (run, key) not in self._settled
        ]
        parts = in_parallel(lambda key: self._range(run, key, look.log_files[key], 0, 1), keys, PARALLEL_LOGS)
        return {key: size for key, (_, size) in zip(keys, parts, strict=True)}

    def _whole(self, run: str, key: str, files: Mapping[str, str]) -> bytes:
        data = b""
        while key in files:
            part, _ = self._range(run, key, files[key], len(data))
            if not part:
                break
            data += part
        return data

    def _range(self, run: str, key: str, url: str, start: int, count: int = _PART_BYTES) -> tuple[bytes, int]:
        """Up to `count` bytes from `start`, and the size of the whole log."""
        for is_again in (False, True):
            headers = {"range": f"bytes={start}-{start + count - 1}", "x-ms-version": "2021-12-02"}
            answer = self._exchange.send("GET", url, headers)
            if answer.status in _REFUSED and not is_again:  # the address has expired: it is valid for some hours
                look = self._looks.at(run)
                url = look.log_files.get(key, url) if look is not None else url
                continue
            break
        if answer.status == 206:
            return answer.data, _total(answer, start + len(answer.data))
        if answer.status == 200:
            return answer.data[start : start + count], len(answer.data)
        if answer.status == 416:
            return b"", _total(answer, start)
        if answer.status == 404:
            return b"", start
        kind = RightsError if answer.status in _REFUSED else ServiceUnavailable
        raise kind(
            f"the log {key} of run {run} cannot be read: status {answer.status} {answer.correlation_id}".rstrip(),
            hint=Message("try again; Studio shows it too: ", Command("runs", "open", run)),
        )


def _files_of(name: str, files: Mapping[str, str]) -> list[str]:
    """One for each attempt that has its own; only the expected one before any exists."""
    key = name if name in files and not name.startswith(USER_LOGS) else USER_LOGS + name
    return sorted((one for one in files if _log_of(one) == key), key=_attempt_of) or [key]


def _attempt_of(key: str) -> int:
    found = _RETRY.search(key)
    return int(found[1]) if found else 0


def _build_log(files: Mapping[str, str]) -> str | None:
    return next((key for key in sorted(files) if _BUILD_LOG.fullmatch(key)), None)


def _total(answer: Answer, default: int) -> int:
    text = answer.headers.get("content-range", "").rpartition("/")[2]
    return int(text) if text.isdecimal() and len(text) <= LONGEST_NUMBER else default
