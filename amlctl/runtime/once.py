"""What is done once per node, however many processes of the run it has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from amlctl.localfs.locks import locked


def once(folder: Path, name: str, content: str, action: Callable[[], None]) -> None:
    """Do it unless a process on this node has done it for the same `content`; whoever comes meanwhile waits.

    A node that dies on the way leaves no marker, so the next one starts again. Raises what `action` raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / f"{name}.done"
    with locked(folder / f"{name}.lock"):
        if marker.is_file() and marker.read_text(encoding="utf-8") == content:
            return
        marker.unlink(missing_ok=True)
        action()
        marker.write_text(content, encoding="utf-8")
