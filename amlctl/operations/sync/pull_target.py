"""The folder that a pull writes to: room is made for what comes, and nothing is deleted that the pull has not seen.

Somebody may work in the folder while the pull is under way. What they edit, make or put in the way is left alone
and named at the end; everything else arrives.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from amlctl.core.diff import folders_above
from amlctl.core.manifest import ONE_FILE, FileEntry
from amlctl.core.message import count
from amlctl.errors import Conflict
from amlctl.localfs.disk_errors import failing_disk
from amlctl.localfs.folders import walk
from amlctl.localfs.scan import Scan, unpack_rows
from amlctl.localfs.target import NotAFolder, TargetFolders
from amlctl.operations.sync.respelled import renames


class PullTarget:
    """`scanned` is what the pull has planned with; `takes_all`: files that it has not seen (ignored ones) may go."""

    def __init__(self, dataset: str, root: Path, scanned: Scan | None, *, takes_all: bool) -> None:
        self._dataset = dataset
        self._root = root
        self._text = os.fspath(root)
        self._takes_all = takes_all
        self._moved: set[str] = set()
        self._seen: dict[str, tuple[int, int, int, int]] = {}
        for folder in () if scanned is None else scanned.folders:
            prefix = f"{folder.path}/" if folder.path else ""
            for row in unpack_rows(folder.rows):
                self._seen[prefix + row.name] = (row.size_bytes, row.mtime_ns, row.inode, row.ctime_ns)

    def may_write(self, entry: FileEntry) -> bool:
        """Asked right before a file takes its name. Safe to call from several threads."""
        return self._is_as_seen(entry.path, is_folder_fine=False)

    def respell(self, renamed: Mapping[str, str]) -> None:
        """Give files that are as they were seen the names by which they will be written; old names by new ones."""
        done: set[tuple[str, str, str]] = set()
        for new, old in renamed.items():
            if not self._is_as_seen(old):
                continue
            for folder, before, after in (step for step in renames(old, new) if step not in done):
                os.rename(self._root / folder / before, self._root / folder / after)
                done.add((folder, before, after))
            found = os.stat(self._path(new))  # its ctime is another one
            self._seen[new] = (found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns)

    def make_room(self, deleted: Sequence[str], to_write: Sequence[FileEntry]) -> Sequence[FileEntry]:
        """Remove files where a folder comes, and folders where a file comes; those of `to_write` that have room."""
        blocked: set[str] = set()
        becomes_folder = any(entry.path != ONE_FILE for entry in to_write)
        if becomes_folder and os.path.lexists(self._root) and not self._root.is_dir():
            if not self._is_as_seen(ONE_FILE):
                return ()
            self._root.unlink()
        for folder in _all_folders(entry.path for entry in to_write):
            path = self._root / folder
            if os.path.lexists(path) and not path.is_dir():
                if self._is_as_seen(folder):
                    path.unlink()
                else:
                    blocked.add(folder)
        has_folder = _folder_checks(self._root)
        for entry in to_write:
            if entry.path.endswith("/") or not has_folder(entry.path):
                continue
            path = self._path(entry.path)
            if not path.is_dir() or path.is_symlink():
                continue
            self.delete([p for p in deleted if p.startswith(f"{entry.path}/") or entry.path == ONE_FILE])
            with suppress(OSError):
                os.rmdir(path)
            if path.is_dir():
                self._moved.add(entry.path)
                blocked.add(entry.path)
        return [e for e in to_write if blocked.isdisjoint((e.path, *_folders(e)))] if blocked else to_write

    def delete(self, paths: Sequence[str], *, kept_folders: Collection[str] = ()) -> None:
        """Remove files, then the folders that this leaves empty, except `kept_folders`: the pull has made them."""
        kept = {folder.rstrip("/") for folder in kept_folders}
        above: set[str] = set()
        with TargetFolders(self._root) as folders:
            for path in paths:
                target = self._path(path)
                if path.endswith("/"):
                    self._remove(folders, path[:-1], os.rmdir)
                elif (not target.is_dir() or target.is_symlink()) and self._is_as_seen(path):
                    # Else a folder stands there where the file has become one.
                    if path == ONE_FILE:
                        target.unlink(missing_ok=True)
                        continue
                    self._remove(folders, path, os.unlink)
                above.update(folders_above(path)[-1:])
            for folder in sorted(above, key=lambda folder: folder.count("/"), reverse=True):
                while folder and folder not in kept and self._remove(folders, folder, os.rmdir):
                    folder = folder.rpartition("/")[0]

    def _remove(self, folders: TargetFolders, path: str, how: Callable[..., None]) -> bool:
        """Not behind a link: then it is somebody else's. False where it stays."""
        folder, _, name = path.rpartition("/")
        try:
            descriptor = folders.opened(folder)
            if not folders.is_in_place(folder):  # moved away, and another one has its name
                self._moved.add(path)
                return False
            how(name, dir_fd=descriptor)
        except NotAFolder:
            if _linked(self._root, [path]):  # else the pull has made a file of the folder
                self._moved.add(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            if how is os.unlink:
                raise
        else:
            return True
        return False

    def leave_out(self, paths: Iterable[str]) -> None:
        """Their folders were moved or replaced during the pull."""
        self._moved.update(paths)

    def raise_if_moved(self) -> None:
        """Raises Conflict."""
        refuse_links(self._dataset, self._root, self._moved)
        if self._moved:
            raise Conflict(
                f"{count(len(self._moved), 'file')} of {self._dataset} changed here during the pull: left alone",
                hint="run the same command again: all others are there",
                details=sorted(self._moved),
            )

    def _path(self, path: str) -> Path:
        return self._root if path == ONE_FILE else self._root / path.rstrip("/")

    def _is_as_seen(self, path: str, *, is_folder_fine: bool = True) -> bool:
        """Nothing, or the file that was planned with; all else is left alone and remembered."""
        if path.endswith("/") or not os.path.lexists(self._text if path == ONE_FILE else f"{self._text}/{path}"):
            return True
        seen = self._seen.get(path)
        try:
            found = os.stat(self._path(path))
        except OSError as error:
            if (failing := failing_disk(error, str(self._path(path)))) is not None:
                raise failing from error
            is_fine = self._takes_all  # a link that leads nowhere: no file of the dataset
        else:
            if stat.S_ISDIR(found.st_mode):
                is_fine = is_folder_fine
            else:
                is_same = seen == (found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns)
                is_fine = is_same or (seen is None and self._takes_all)
        if not is_fine:
            self._moved.add(path)
        return is_fine


def hidden(root: Path, to_write: Sequence[FileEntry], here: Mapping[str, FileEntry]) -> list[str]:
    """Paths that would be overwritten, or are in the way, although no snapshot and no merge has seen them."""
    folders = _all_folders(here)
    new_folders = _all_folders(entry.path for entry in to_write) - folders
    found = {
        folder
        for folder in new_folders
        if folder not in here and os.path.lexists(root / folder) and not (root / folder).is_dir()
    }
    text, has_folder = os.fspath(root), _folder_checks(root)
    for entry in to_write:
        if entry.path.endswith("/") or entry.path == ONE_FILE or entry.path in here or not has_folder(entry.path):
            continue
        if entry.path in folders or f"{entry.path}/" in here:
            found.update(_unknown_below(root, entry.path, here))
        elif os.path.lexists(f"{text}/{entry.path}"):
            found.add(entry.path)
    return sorted(found)


def refuse_links(dataset: str, root: Path, paths: Iterable[str]) -> None:
    """Raises Conflict where a folder above one of `paths`, below the root, is a link."""
    links = [f"{one} -> {os.readlink(root / one)}" for one in _linked(root, paths)]
    if links:
        raise Conflict(
            f"{dataset} has {count(len(links), 'folder')} that are links: a pull does not write behind them",
            hint="replace each link by a folder that holds its files, then run the same command again",
            details=links,
        )


def _linked(root: Path, paths: Iterable[str]) -> list[str]:
    """Folders above `paths`, below the root, that are links."""
    text = os.fspath(root)
    folders = {path.rstrip("/").rpartition("/")[0] for path in paths}
    above = {part for folder in folders for part in [*folders_above(folder), folder] if part}
    return [folder for folder in sorted(above) if os.path.islink(f"{text}/{folder}")]


def _folder_checks(root: Path) -> Callable[[str], bool]:
    """Whether the folder that holds a path (relative to `root`) is there, each looked at once: below one that is not,
    nothing need be looked for."""
    text = os.fspath(root)
    is_there = cache(lambda folder: os.path.lexists(f"{text}/{folder}"))
    return lambda path: is_there(path.rpartition("/")[0])


def _unknown_below(root: Path, folder: str, here: Collection[str]) -> Iterator[str]:
    top = os.fspath(root)
    for above, _, names in walk(f"{top}/{folder}"):
        for name in names:
            path = f"{above[len(top) + 1 :]}/{name}"
            if path not in here:
                yield path


def _all_folders(paths: Iterable[str]) -> set[str]:
    """Those that have to be there for the paths; of many files in one folder its parts are cut once."""
    nearest = {path.rpartition("/")[0] for path in paths} - {""}
    return nearest | {part for folder in nearest for part in folders_above(folder)}


def _folders(entry: FileEntry) -> list[str]:
    """Those that have to be there for it: an empty folder is one itself."""
    above = folders_above(entry.path)
    return [*above, entry.path[:-1]] if entry.path.endswith("/") else above
