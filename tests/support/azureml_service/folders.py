"""Folders of a node that stand for places in storage: inputs brought down, outputs given back."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from .storage import MissingDataError, Storage


def bring_input(storage: Storage, asked: dict[str, Any], folder: Path) -> str:
    """The text that the command sees for it: a path, an address for Direct, a literal's value."""
    kind = asked.get("jobInputType")
    if kind == "literal":
        return str(asked.get("value"))
    uri = str(asked["uri"])
    mode = asked.get("mode") or "ReadOnlyMount"
    if mode == "Direct":
        return uri
    container, path = storage.address(uri)
    if kind == "uri_file":
        target = folder / path.rpartition("/")[2]
        storage.bring_file(container, path, target)
    else:
        target = folder
        if not storage.bring_folder(container, path, folder) and "Mount" not in mode:
            raise MissingDataError(f"Nothing lies at {uri}.")
    if mode in ("ReadOnlyMount", "EvalMount"):
        _set_modes(folder, folder_mode=0o555, file_mode=0o444)
    return str(target)


class OutputFolder:
    """A folder whose files are sent to a place in storage. `sync` is called from one thread at a time."""

    def __init__(self, storage: Storage, folder: Path, container: str, prefix: str, *, is_mount: bool) -> None:
        """`prefix` ends with a slash. A mount begins with what lies there; files deleted in it are deleted there."""
        self.folder = folder
        self._storage = storage
        self._container = container
        self._prefix = prefix
        self._is_mount = is_mount
        self._sent: dict[str, tuple[int, int, int]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        if is_mount:
            storage.bring_folder(container, prefix, folder)
            self._sent = self._present()

    def sync(self) -> None:
        present = self._present()
        for name, state in present.items():
            if self._sent.get(name) != state:
                try:
                    self._storage.send_file(self.folder / name, self._container, self._prefix + name)
                except FileNotFoundError:  # renamed or deleted since it was listed: the next round sees that
                    continue
                self._sent[name] = state
        if self._is_mount:
            for name in [name for name in self._sent if name not in present]:
                self._storage.delete(self._container, self._prefix + name)
                del self._sent[name]

    def _present(self) -> dict[str, tuple[int, int, int]]:
        """Relative path to what changes when a file does."""
        found = {}
        for root, _, names in os.walk(self.folder):
            for name in names:
                path = Path(root, name)
                try:
                    state = path.stat()
                except FileNotFoundError:
                    continue
                if path.is_file():
                    relative = path.relative_to(self.folder).as_posix()
                    found[relative] = (state.st_ino, state.st_size, state.st_mtime_ns)
        return found


def output_place(storage: Storage, job: str, name: str, asked: dict[str, Any]) -> tuple[str, str]:
    """Container and prefix of a named output."""
    if asked.get("uri"):
        container, path = storage.address(str(asked["uri"]).replace("${{name}}", job))
        return container, path if path.endswith("/") or not path else path + "/"
    return storage.default_container, f"azureml/{job}/{name}/"


def delete_folder(folder: Path) -> None:
    """Also where it was made read-only."""
    _set_modes(folder, folder_mode=0o755, file_mode=None)
    shutil.rmtree(folder, ignore_errors=True)


def _set_modes(folder: Path, *, folder_mode: int, file_mode: int | None) -> None:
    """The top's mode is set last when it shuts, first when it opens."""
    opens = bool(folder_mode & 0o200)
    for root, _, names in os.walk(folder, topdown=opens):
        if opens:
            Path(root).chmod(folder_mode)
        if file_mode is not None:
            for name in names:
                Path(root, name).chmod(file_mode)
        if not opens:
            Path(root).chmod(folder_mode)
