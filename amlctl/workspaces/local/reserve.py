"""Room that a run keeps on its disk from its start, so that a disk which fills up still takes how it ended."""

from __future__ import annotations

import os

from amlctl.errors import AmlctlError, ServiceUnavailable
from amlctl.localfs.disk_errors import disk_error
from amlctl.localfs.folders import open_private
from amlctl.workspaces.local.places import RunPlaces

_BYTES = 128 << 10
"""For two copies of the record, the last lines of the log, and the folders that they lie in."""


def keep_room(places: RunPlaces) -> None:
    """Raises OSError."""
    with open_private(places.reserve, "wb") as file:
        file.write(os.urandom(_BYTES))  # some file systems take no room for zeros


def give_room(places: RunPlaces) -> None:
    """From now on the end is written; once is enough."""
    places.reserve.unlink(missing_ok=True)


def machine_error(places: RunPlaces, error: OSError) -> AmlctlError:
    """What this machine has said of a run, with the place that it is about where it is the disk."""
    told = disk_error(error, f"run {places.run}, in {places.folder}")
    return told or ServiceUnavailable(f"this machine failed the run: {error}")
