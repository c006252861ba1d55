"""Files that appear whole or not at all: written under a temporary name beside the target, then renamed."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

from amlctl.errors import SettingsError

TEMPORARY_PREFIX = ".amlctl-tmp-"
"""Begins every temporary name; whoever lists a folder skips these."""


STALE_S = 24 * 3600.0
"""Older than this, a temporary file belongs to a writer that was killed."""

_counter = itertools.count()


def temporary_beside(path: Path) -> Path:
    """A fresh name in the folder of `path`, so that the rename stays inside one file system."""
    return path.with_name(temporary_name())


def temporary_name() -> str:
    """A name that no other process and no other thread uses."""
    return f"{TEMPORARY_PREFIX}{_process_token(os.getpid())}-{next(_counter)}"


@functools.lru_cache(maxsize=1)
def _process_token(process: int) -> str:
    return os.urandom(8).hex()


def remove_stale(folder: Path, older_than_s: float = STALE_S) -> int:
    """Remove temporary files of killed writers from one folder; how many. A folder that is not there has none."""
    removed = 0
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(TEMPORARY_PREFIX):
                with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                    if time.time() - entry.stat(follow_symlinks=False).st_mtime > older_than_s:
                        os.unlink(entry.path)
                        removed += 1
    return removed


def write_bytes(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace the file's content in one step; makes missing parent folders. Raises OSError."""
    temporary = temporary_beside(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_json(path: Path, document: object) -> None:
    """`document` as indented JSON, in one step."""
    write_bytes(path, (json.dumps(document, indent=2, ensure_ascii=True) + "\n").encode())


def read_json(path: Path) -> Any:
    """Raises FileNotFoundError, and SettingsError where the file holds no JSON."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise SettingsError(f"{path} is no JSON: {error}") from error
