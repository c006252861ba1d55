"""Unexpected exceptions: a few that the operating system explains, and internal errors of amlctl."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from amlctl import __version__
from amlctl.cli.render.tables import printable
from amlctl.core.secret_names import mask_command_line, masked
from amlctl.errors import AmlctlError, SettingsError
from amlctl.localfs.atomic import write_bytes
from amlctl.localfs.disk_errors import LIMITS, disk_error, limit_error


class InternalFault(AmlctlError):
    """An internal error of amlctl."""

    kind: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 70


def explained(error: Exception) -> AmlctlError | None:
    """The user's error behind a failure of the operating system; None if the user cannot act on it."""
    if isinstance(error, ImportError):  # a library could not be opened: only the text says why
        error = next((OSError(number, "") for number in LIMITS if os.strerror(number) in str(error)), error)
    if not isinstance(error, OSError):
        return limit_error(error, "")
    place = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    if isinstance(error, IsADirectoryError):
        return SettingsError(f"{place} is a folder, expected a file", hint="move the folder away")
    return disk_error(error, place)


def internal_fault(error: BaseException, arguments: Sequence[str], folder: Path | None) -> InternalFault:
    """Write a report to `folder` (default: the temporary folder), and name it."""
    report = "\n".join(
        [
            f"amlctl {__version__}, Python {platform.python_version()}, {platform.platform()}",
            f"command: {without_values(arguments)}",
            "",
            "".join(traceback.format_exception(error)),
        ]
    )
    place = _write_report(report, folder)
    last = traceback.format_exception_only(error)[-1].strip()
    where = f"the full report is in {place}" if place else "the report could not be written"
    return InternalFault(
        f"amlctl itself failed: {last}",
        details=(f"This should not happen; {where}",),
        hint="run it again with -v to see where, and send the report to the developers",
    )


def without_values(arguments: Sequence[str]) -> str:
    """The command line without the values of `--env`, secrets and the arguments of the script."""
    shown: list[str] = []
    for argument in mask_command_line(arguments, ()):
        if argument == "--":
            shown.append("-- …")
            break
        if shown and shown[-1] == "--env":
            argument = argument.partition("=")[0] + "=…"
        elif argument.startswith("--env="):
            argument = "=".join(argument.split("=")[:2]) + "=…"
        shown.append(argument)
    return " ".join(["amlctl", *shown])


def _write_report(report: str, folder: Path | None) -> Path | None:
    name = f"amlctl-{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.log"
    for place in (folder, Path(tempfile.gettempdir())):
        if place is None:
            continue
        try:
            path = place / name
            write_bytes(path, masked(report).encode("utf-8", "backslashreplace"))
        except OSError:
            continue
        return path
    return None


def print_traceback(error: BaseException) -> None:
    for line in masked("".join(traceback.format_exception(error))).splitlines():
        print(printable(line), file=sys.stderr)  # noqa: T201  for the developer's eyes
