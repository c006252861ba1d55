"""Copies a run's outputs into the store at intervals, each time only what changed.

In order: scan, find changes, write an index that announces replacements, the files, the index, delete what is gone. A
kill between any two of these leaves a tree that can be read, and from which the next saver continues.

A save at an interval relies on stat data. The last one reads every file: a memory map changes a file without its time.
"""

from __future__ import annotations

import errno
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from amlctl.core.content_id import EMPTY
from amlctl.core.diff import folders_above
from amlctl.core.store_keys import StoredTree
from amlctl.errors import AmlctlError, Conflict, IntegrityError, SettingsError, UsageError
from amlctl.localfs.scan import RACY_NS, FileRow, scan, unpack_rows
from amlctl.parallel import in_parallel
from amlctl.runs.tree import FORMAT, TreeFile, encode_tree_index, read_tree_index, stored_key, tree_file
from amlctl.stores.contract import FileBody, Store

_TRIES = 3
"""Attempts of the last save to copy a file that still changes."""
_LINES = 50
"""Of files that could not be saved, in a log."""
_UNUSABLE_NAMES = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL})

Stats = tuple[int, int, int, int, int]
"""Mode, size, mtime in nanoseconds, inode, ctime in nanoseconds."""


@dataclass
class _Seen:
    """What a save finds, by path: files that the store keeps or has by now, those to copy, and stat data to trust."""

    kept: dict[str, TreeFile] = field(default_factory=dict)
    changed: dict[str, TreeFile] = field(default_factory=dict)
    stats: dict[str, Stats] = field(default_factory=dict)


class TreeSaver:
    """Not thread-safe. After a `save`, `refused` and `left_out` say which files of the folder are not in the store."""

    def __init__(self, store: Store, source: Path, tree: StoredTree) -> None:
        """The index of an earlier saver is continued. Raises what the store raises."""
        self._store = store
        self._source = source
        self._prefix, self._index_key = tree.prefix, tree.index_key
        self._saved: dict[str, TreeFile] = {}
        self._unsure: dict[str, set[TreeFile]] = {}
        """What the store may have instead of the saved file: a save of it was interrupted."""
        self._stats: dict[str, Stats] = {}
        self._just_read: set[str] = set()
        """In the previous save, and stored as they were read."""
        self.refused: dict[str, str] = {}
        """Of the last save, with the reason: what could not be read or stored."""
        self.left_out: dict[str, str] = {}
        """Of the last save, with the reason: what has no bytes, such as sockets and dangling links."""
        try:
            index = read_tree_index(store, tree.index_key)
        except IntegrityError:  # rewritten from the files of this disk
            index = None
        if index is not None and tree.prefix_in(index.format) == tree.prefix:
            self._saved = {file.path: file for file in index.files}
            for file in index.pending:
                self._unsure.setdefault(file.path, set()).add(file)
        self._may_remove_stray = index is not None
        """Without an index it is not known what they are."""
        self._has_index = index is not None and index.format == FORMAT
        self._stray = self._list_stray()

    def save(self, *, is_last: bool = False) -> int:
        """Copy new and changed files, write the index, delete what is gone; returns the number of files copied.

        A file that changes while it is copied keeps its earlier copy and is saved next time. After an error the next
        save continues. `is_last`: the writers have ended, so every file is read; changes that stat data shows come
        first, since a node that is pre-empted has little time.
        """
        copied = self._save(is_last=False)
        return copied + self._save(is_last=True) if is_last else copied

    def _save(self, *, is_last: bool) -> int:
        seen = self._look(is_last=is_last)
        self._keep_refused(seen.kept)
        copied = self._copy_changed(seen, is_last=is_last)
        gone = [file for path, file in self._saved.items() if path not in seen.kept]
        settled = {file.path for file in (*gone, *copied)}
        unsure = {path: files for path, files in self._unsure.items() if files and path not in settled}
        if seen.kept != self._saved or unsure != self._unsure or not self._has_index:
            self._put_index(seen.kept.values(), unsure)
            self._has_index = True
        # Only after the index was written: a kill before that leaves the new files in doubt.
        self._unsure, self._saved = unsure, seen.kept
        self._stats.update(seen.stats)
        self._remove(gone)
        return sum(not file.is_folder for file in copied)

    def _look(self, *, is_last: bool) -> _Seen:
        trusted_before_ns = time.time_ns() - RACY_NS
        seen = _Seen()
        self.refused, self.left_out = {}, {}
        just_read, self._just_read = self._just_read, set()
        for path, stats in self._walk():
            before = None if path in self._unsure else self._saved.get(path)
            if before is not None and (path in just_read if is_last else self._stats.get(path) == stats):
                seen.kept[path] = before
                continue
            file = self._identified(path, is_last=is_last)
            if file is None:
                continue
            if stats is not None and max(stats[2], stats[4]) < trusted_before_ns:
                seen.stats[path] = stats
            self._just_read.add(path)
            if before is not None and file.has_bytes_of(before):
                seen.kept[path] = before._replace(mtime_ns=file.mtime_ns)
            else:
                seen.changed[path] = file
        return seen

    def _copy_changed(self, seen: _Seen, *, is_last: bool) -> list[TreeFile]:
        """Those that were copied are kept. The last save tries again what changes meanwhile."""
        changed = self._with_layers(seen.changed)
        copied: list[TreeFile] = []
        for tries_left in reversed(range(_TRIES if is_last else 1)):
            announced = self._announce(changed)
            moving: list[str] = []
            were_copied = in_parallel(self._copy, changed.values(), self._store.concurrency)
            for file, is_copied in zip(changed.values(), were_copied):
                if is_copied:
                    copied.append(file)
                    seen.kept[file.path] = file
                else:
                    self._keep_earlier(file, seen, announced)
                    moving += [file.path] if file.path not in self.refused else []
            if not moving:
                break
            if tries_left:
                again = [self._identified(path, is_last=is_last) for path in moving]
                layers = {path: changed[path].layer for path in moving}
                changed = {file.path: file._replace(layer=layers[file.path]) for file in again if file is not None}
            elif is_last:
                self.refused.update(dict.fromkeys(moving, "still changing"))
        return copied

    def _keep_earlier(self, file: TreeFile, seen: _Seen, announced: Set[TreeFile]) -> None:
        """The copy of an earlier save, since the file could not be copied now."""
        seen.stats.pop(file.path, None)
        self._just_read.discard(file.path)
        if file.path in self._saved:
            seen.kept[file.path] = self._saved[file.path]
        if file in announced:
            self._unsure[file.path].discard(file)

    def not_kept(self) -> list[str]:
        """Lines about what the last `save` could not save."""
        lines = [f"{_shown(path)} could not be saved: {why}" for path, why in sorted(self.refused.items())]
        lines += [f"{_shown(path)} was left out: {why}" for path, why in sorted(self.left_out.items())]
        more = len(lines) - _LINES
        return lines if more <= 1 else [*lines[:_LINES], f"{more} more outputs could not be saved"]

    def _walk(self) -> list[tuple[str, Optional[Stats]]]:
        """Sorted paths to save; empty folders, which have no stats, end with `/`. Links are followed."""
        try:
            scanned = scan(self._source)
        except FileNotFoundError:
            if self._saved:
                self.refused["."] = "the folder was deleted; the files saved before are kept"
            return []
        except UsageError as error:
            self.refused["."] = error.message
            return []
        if scanned.is_one_file:
            self.refused["."] = "it is a file, not a folder"
            return []
        for text in scanned.warnings:
            path, _, why = text.rpartition(": ")
            self.left_out[path] = why.partition(";")[0]
        for text in scanned.unreadable:
            path, _, why = text.rpartition(": ")
            self.refused[path] = f"cannot be read: {why}"
        found: list[tuple[str, Optional[Stats]]] = []
        for folder in scanned.folders:
            prefix = f"{folder.path}/" if folder.path else ""
            found += [(prefix + row.name, _stats(row)) for row in unpack_rows(folder.rows)]
            if folder.is_empty and prefix:
                found.append((prefix, None))
        return sorted(found, key=lambda one: one[0])

    def _identified(self, path: str, *, is_last: bool) -> Optional[TreeFile]:
        if path.endswith("/"):
            return TreeFile(path, 0, False, EMPTY)
        try:
            return tree_file(self._source / path, path)
        except FileNotFoundError:
            if is_last:
                self.refused[path] = "deleted while it was saved"
        except OSError as error:
            self.refused[path] = f"cannot be read: {error.strerror or error}"
        return None

    def _keep_refused(self, found: dict[str, TreeFile]) -> None:
        """Keep the earlier copies of what could not be read or stored."""
        for path in self._saved if self.refused else ():
            if path not in found and not self.refused.keys().isdisjoint((path, *folders_above(path), ".")):
                found[path] = self._saved[path]

    def _with_layers(self, changed: Mapping[str, TreeFile]) -> dict[str, TreeFile]:
        """Each new file in the first layer that has room for it; see `stored_key`."""
        if not changed:
            return {}
        layers: defaultdict[int, _Layer] = defaultdict(_Layer)
        for file in self._saved.values():
            if not file.is_folder:
                layers[file.layer].add(file.path)
        for file in self._stray:
            layers[file.layer].add(file.path)
        placed = {}
        for path, file in changed.items():
            before = self._saved.get(path)
            number = 0 if before is None else before.layer
            while not file.is_folder and before is None and not layers[number].has_room(path):
                number += 1
            layers[number].add(path)
            placed[path] = file._replace(layer=number)
        return placed

    def _announce(self, changed: Mapping[str, TreeFile]) -> set[TreeFile]:
        """Name new contents of saved files in the index before they are replaced; returns those not named yet."""
        replaced = [file for path, file in changed.items() if path in self._saved]
        new = {file for file in replaced if file not in self._unsure.get(file.path, ())}
        for file in new:
            self._unsure.setdefault(file.path, set()).add(file)
        if new:
            self._put_index(self._saved.values(), self._unsure)
        return new

    def _copy(self, file: TreeFile) -> bool:
        """False if it was not copied; `refused` has the reason, unless the file has changed."""
        if file.is_folder:
            return True
        body = FileBody(self._source / file.path, file.size_bytes, file.content_id)
        try:
            self._store.put(stored_key(self._prefix, file), body, replace=True)
        except Conflict:  # it changed; nothing was written
            return False
        except AmlctlError as error:
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else None
            is_of_name = isinstance(error, SettingsError) or (cause is not None and cause.errno in _UNUSABLE_NAMES)
            if not is_of_name:
                raise
            why = error.message if cause is None else str(cause.strerror)
            self.refused[file.path] = f"cannot be stored: {why}"
            return False
        return True

    def _put_index(self, files: Iterable[TreeFile], unsure: Mapping[str, set[TreeFile]]) -> None:
        pending = sorted(file for doubtful in unsure.values() for file in doubtful)
        self._store.put(self._index_key, encode_tree_index(sorted(files), pending), replace=True)

    def _remove(self, gone: Iterable[TreeFile]) -> None:
        live = {stored_key(self._prefix, file) for file in self._saved.values()}
        for file in (*gone, *(self._stray if self._may_remove_stray else ())):
            if not file.is_folder and stored_key(self._prefix, file) not in live:
                self._store.delete(stored_key(self._prefix, file))
        self._stray = []

    def _list_stray(self) -> list[TreeFile]:
        """Files that a killed saver left in the store without naming them in an index."""
        known = {stored_key(self._prefix, file) for file in self._saved.values()}
        folder, _, name = self._prefix[:-1].rpartition("/")
        stray = []
        for entry in self._store.list(f"{folder}/" if folder else ""):
            top, _, path = entry.key[len(folder) + 1 if folder else 0 :].partition("/")
            layer = 0 if top == name else _layer_number(top, name)
            if path and layer is not None and entry.key not in known:
                stray.append(TreeFile(path, entry.size_bytes, False, "", 0, layer))
        return stray


def _shown(path: str) -> str:
    shown = "outputs" if path == "." else f"outputs/{path}"
    return shown if shown.isprintable() else ascii(shown)


def _stats(row: FileRow) -> Stats:
    return row.mode, row.size_bytes, row.mtime_ns, row.inode, row.ctime_ns


class _Layer:
    """Paths of files, and the folders above them."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def add(self, path: str) -> None:
        self._files.add(path)
        self._folders.update(folders_above(path))

    def has_room(self, path: str) -> bool:
        return path not in self._folders and self._files.isdisjoint(folders_above(path))


def _layer_number(top: str, name: str) -> Optional[int]:
    number = top[len(name) + 1 :]
    return int(number) if top.startswith(f"{name}.") and number.isdecimal() else None
