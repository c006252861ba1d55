"""Text files of the project, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

from amlctl.errors import NotFound, RightsError, SettingsError


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
        raise RightsError(f"cannot read {shown}: {error.strerror}", hint=f"check the rights of {path}") from error
