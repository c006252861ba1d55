"""Text files of the project, with errors that name the file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from amlctl.errors import AmlctlError, NotFound, RightsError, SettingsError
from amlctl.localfs.disk_errors import disk_error

MAX_BYTES = 4 << 20
"""Of a settings, job, compute or environment file; one that is larger is something else."""


def read_bytes(path: Path, shown: str, *, hint: str = "", limit: int = MAX_BYTES) -> bytes:
    """`shown` names the file in errors, `hint` is for a missing one.

    Raises NotFound, RightsError, SettingsError (not a file, or larger than `limit`).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # never wait for the other end of a pipe
        with os.fdopen(descriptor, "rb") as file:
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISDIR(mode) or not stat.S_ISREG(mode):
                raise _not_a_file(path, shown, "a folder" if stat.S_ISDIR(mode) else "a pipe, device or socket")
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise NotFound(f"there is no {shown}", hint=hint) from None
    except IsADirectoryError as error:
        raise _not_a_file(path, shown, "a folder") from error
    except OSError as error:
        raise file_error(error, path, shown) from error
    if len(data) > limit:
        raise SettingsError(
            f"{shown} has more than {limit >> 20} MiB", hint="put what is large into pipeline/ or data_blobs/"
        )
    return data


def read_text(path: Path, shown: str, *, hint: str = "") -> str:
    """UTF-8, a byte-order mark left out. Raises as `read_bytes` does, and SettingsError for what is not UTF-8."""
    try:
        return read_bytes(path, shown, hint=hint).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{shown} is not UTF-8 text (byte {error.start})", hint="save it as UTF-8") from error


def file_error(error: OSError, path: Path, shown: str) -> AmlctlError:
    """Why a file or folder of the project, shown as `shown`, cannot be read."""
    hint = f"check the rights of {path}"
    found = disk_error(error, f"cannot read {shown}", rights_hint=hint)
    return found or RightsError(f"cannot read {shown}: {error.strerror}", hint=hint)


def _not_a_file(path: Path, shown: str, what: str) -> SettingsError:
    return SettingsError(f"{shown} is {what}, and a file is needed there", hint=f"move {path} away")
