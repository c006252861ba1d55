"""Text files of the project, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

from amlctl.errors import AmlctlError, NotFound, RightsError, SettingsError
from amlctl.localfs.disk_errors import disk_error


def read_text(path: Path, shown: str, *, hint: str = "") -> str:
    """UTF-8, a byte-order mark left out; `shown` names the file in errors, `hint` is for a missing one.

    Raises NotFound, RightsError, SettingsError (a folder, or no UTF-8).
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise NotFound(f"there is no {shown}", hint=hint) from None
    except IsADirectoryError as error:
        raise SettingsError(f"{shown} is a folder, and a file is needed there", hint=f"move {path} away") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{shown} is no UTF-8 text (byte {error.start})", hint="save it as UTF-8") from error
    except OSError as error:
        raise file_error(error, path, shown) from error


def file_error(error: OSError, path: Path, shown: str) -> AmlctlError:
    """Why a file or folder of the project, shown as `shown`, cannot be read."""
    hint = f"check the rights of {path}"
    found = disk_error(error, f"cannot read {shown}", rights_hint=hint)
    return found or RightsError(f"cannot read {shown}: {error.strerror}", hint=hint)
