"""How a value of a folder store becomes a file: written under a temporary name, it appears by hard link or rename."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from amlctl.core.content_id import ContentHasher
from amlctl.errors import SettingsError
from amlctl.localfs.atomic import move, move_if_new, temporary_beside
from amlctl.localfs.disk_errors import changed_while_sent, sending_error
from amlctl.localfs.folders import make_folders, remove_empty_folders
from amlctl.stores.contract import Buffer, FileBody, OnBytes

_BUFFERS_AT_ONCE = 512
"""Half of what Linux and macOS take in one call (IOV_MAX)."""


def make(folder: Path) -> None:
    try:
        make_folders(folder)
    except FileNotFoundError as error:  # what a place like /proc answers, where nothing can be made
        raise SettingsError(
            f"the store's folder {folder} cannot be made: {error.strerror}", hint="choose another folder"
        ) from error


def create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def write_buffers(descriptor: int, buffers: Sequence[Buffer]) -> None:
    """Many at a time: each call waits for the interpreter's lock."""
    for start in range(0, len(buffers), _BUFFERS_AT_ONCE):
        pending = buffers[start : start + _BUFFERS_AT_ONCE]
        written = os.writev(descriptor, pending)
        # A disk that runs full, or a signal, cuts a write short.
        rest = memoryview(b"".join(pending))[written:] if written < sum(map(len, pending)) else None
        while rest:
            rest = rest[os.write(descriptor, rest) :]


def copy_checked(body: FileBody, descriptor: int, on_bytes: OnBytes) -> None:
    hasher = ContentHasher()
    try:
        source = body.path.open("rb")
    except OSError as error:
        raise sending_error(error, body.path) from error
    with source:
        while part := _read_part(body.path, source):
            hasher.update(part)
            write_buffers(descriptor, [part])
            on_bytes(len(part))
    if hasher.hexdigest() != body.content_id:
        raise changed_while_sent(body.path)
    body.may_go_on()


def _read_part(path: Path, source: BinaryIO) -> bytes:
    try:
        return source.read(1 << 20)
    except OSError as error:
        raise sending_error(error, path) from error


def appear(temporary: Path, path: Path, replace: bool) -> bool:
    try:
        return _appear_on_one_disk(temporary, path, replace)
    except IsADirectoryError:
        remove_empty_folders(path)
        return _appear_on_one_disk(temporary, path, replace)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    # A folder further down is a link to another disk.
    beside = temporary_beside(path)
    try:
        shutil.copy(temporary, beside)
        return _appear_on_one_disk(beside, path, replace)
    finally:
        beside.unlink(missing_ok=True)


def _appear_on_one_disk(temporary: Path, path: Path, replace: bool) -> bool:
    if replace:
        move(temporary, path)
        return True
    return move_if_new(temporary, path)
