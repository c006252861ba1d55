"""A local file that cannot be read while it is sent."""

from __future__ import annotations

from pathlib import Path

from amlctl.errors import AmlctlError, Conflict
from amlctl.localfs.disk_errors import disk_error


def unreadable(path: Path, error: OSError) -> AmlctlError:
    """Conflict if the file was removed or replaced since it was hashed; else what the disk or a limit refuses."""
    return disk_error(error, str(path)) or Conflict(
        f"{path} changed while it was sent: {error.strerror or error}", hint="run the same command again"
    )
