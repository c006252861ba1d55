"""Files in a folder that is not part of a store, to be copied into one."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Optional

from amlctl.core.message import AGAIN
from amlctl.errors import Conflict, NotFound
from amlctl.localfs.folders import walk
from amlctl.localfs.read_file import file_content_id
from amlctl.stores.contract import FileBody, PlainFile, Store


class FolderFiles:
    """Satisfies `stores.contract.PlainFiles`."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self.url = self.prefix = str(folder)

    def files(self) -> Sequence[PlainFile]:
        own = os.path.realpath(self._store.url)
        found = []
        for at, _, names in walk(self._folder):
            if f"{os.path.realpath(at)}/".startswith(f"{own}/"):
                continue
            for name in names:
                path = os.path.join(at, name)
                with suppress(OSError):  # it has just gone, or is a link that leads nowhere
                    seen = os.stat(path)
                    if stat.S_ISREG(seen.st_mode):
                        found.append(PlainFile(os.path.relpath(path, self._folder), seen.st_size))
        return found

    def read(self, file: PlainFile, here: Optional[Path]) -> tuple[str, str]:
        try:
            return file_content_id(self._folder / file.path), ""
        except FileNotFoundError as error:
            raise NotFound(f"{file.path} in {self.url} is gone", hint=AGAIN) from error

    def copy(self, file: PlainFile, version: str, key: str, content_id: str) -> None:
        try:  # the bytes are compared with the content id on the way
            self._store.put(key, FileBody(self._folder / file.path, file.size_bytes, content_id))
        except Conflict as error:
            hint = AGAIN
            raise Conflict(f"{file.path} in {self.url} changed while it was read", hint=hint) from error
