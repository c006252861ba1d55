"""A folder as the store: one file a key.

Values appear by hard link or rename of a finished temporary file. Packs and objects are immutable and
read-only (0444). HEADs, manifests, packs and objects are on the disk (fsync) before they appear, unless the store was
opened without that; other values may be damaged by a power cut, not by a killed process. Every reader verifies
content ids, and `sync --repair` sends damaged bytes again.

Temporary files stand in the folders at the top of the store, so that the first write of each command can remove what
killed writers have left there without a walk through the whole store.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_IMODE, S_ISDIR
from typing import Optional, Union

from amlctl.core.content_id import content_id
from amlctl.core.message import Command, Message
from amlctl.core.store_keys import AREAS, LONGEST_NAME, area_of, is_lease_key
from amlctl.errors import AmlctlError, Conflict, IntegrityError, NotFound, ServiceUnavailable, SettingsError
from amlctl.localfs.atomic import (
    TEMPORARY_PREFIX,
    remove_left_behind,
    set_mode,
    sync_folder,
    sync_to_disk,
    temporary_name,
)
from amlctl.localfs.disk_errors import FULL, UnfitFile, disk_error
from amlctl.localfs.folders import walk
from amlctl.localfs.locks import locked
from amlctl.localfs.regular_file import open_regular
from amlctl.stores.contract import (
    Body,
    Buffers,
    Entry,
    FileBody,
    Guard,
    OnBytes,
    Parts,
    Traffic,
    Versioned,
    is_valid_key,
    unobserved,
)
from amlctl.stores.value_files import appear, copy_checked, create, make, write_buffers

_LOCK_NAME = ".amlctl-lock"
_RELEASED_AT_ONCE = 8
"""Parts of a pack, 16 MiB."""
_MOST_DOCUMENT_BYTES = 4 << 20


class DirectoryStore:
    """Thread-safe; several processes may use the same folder. `traffic.requests` counts calls."""

    def __init__(self, root: Path, *, is_synced: bool = True, may_be_new: bool = True) -> None:
        """`is_synced`: what HEAD relies on survives a power cut. `may_be_new`: the first write makes the folder;
        otherwise writing to a folder that is gone raises NotFound."""
        self._root = root.absolute()
        self._may_be_new = may_be_new
        self._traffic = Traffic()
        self._is_synced = is_synced
        self._is_swept = False

    @property
    def url(self) -> str:
        return str(self._root)

    @property
    def folder(self) -> Path:
        return self._root

    @property
    def traffic(self) -> Traffic:
        return self._traffic

    @property
    def concurrency(self) -> int:
        return 8

    def check_key(self, key: str) -> None:
        for part in self._path(key).relative_to(self._root).parts:
            if len(os.fsencode(part)) > LONGEST_NAME:
                raise SettingsError(
                    f"the store {self.url} cannot hold {key}: a name in a folder has at most {LONGEST_NAME} bytes",
                    hint="use a shorter name",
                )

    def get(self, key: str, *, start: int = 0, length: Optional[int] = None, on_bytes: OnBytes = unobserved) -> bytes:
        path = self._path(key)
        with self._translated(key):
            try:
                with open_regular(path) as file:
                    left = max(0, os.fstat(file.fileno()).st_size - start)
                    file.seek(start)
                    data = file.read(left if length is None else min(length, left))
            except NotADirectoryError as error:
                raise FileNotFoundError(error.errno, error.strerror, key) from error
        self._traffic.add(received_bytes=len(data))
        on_bytes(len(data))
        return data

    def get_versioned(self, key: str) -> Optional[Versioned]:
        self._traffic.add()
        try:
            with self._translated(key):
                data = _read_document(self._path(key))
        except NotFound:
            return None
        self._traffic.add(received_bytes=len(data), requests=0)
        return Versioned(data, content_id(data))

    def download(self, key: str, target: Path, parts: Optional[Parts] = None, *, on_bytes: OnBytes = unobserved) -> int:
        source = self._path(key)
        with self._translated(key):
            if not source.is_file():
                raise FileNotFoundError(source)
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            if _is_of_target(error, target):
                found = disk_error(error, str(target.parent))
            else:
                found = _translate(error, key, self.url)
            if found is None:
                raise
            raise found from error
        size = target.stat().st_size
        self._traffic.add(received_bytes=size)
        on_bytes(size)
        if parts is not None:
            parts.arrived(0, size)
        return size

    def put(self, key: str, body: Body, *, replace: bool = False, on_bytes: OnBytes = unobserved) -> bool:
        path = self._path(key)
        self._traffic.add()
        with self._translated(key):
            if not replace and path.exists():
                return False
            return self._write(key, body, replace=replace, on_bytes=on_bytes)

    def _write(self, key: str, body: Body, *, replace: bool, on_bytes: OnBytes = unobserved) -> bool:
        """Under a temporary name first. Raises OSError."""
        self._remove_left_behind()
        temporary = self._temporary(key)
        try:
            try:
                descriptor = create(temporary)
            except FileNotFoundError:
                self._make(temporary.parent)
                descriptor = create(temporary)
            try:
                if isinstance(body, FileBody):
                    copy_checked(body, descriptor, on_bytes)
                elif isinstance(body, Buffers):
                    for start in range(0, len(body), _RELEASED_AT_ONCE):
                        some = body[start : start + _RELEASED_AT_ONCE]
                        write_buffers(descriptor, some)
                        body.release(sum(map(len, some)))
                else:
                    write_buffers(descriptor, [body] if isinstance(body, bytes) else body)
                area = area_of(key)
                set_mode(descriptor, 0o444 if area.is_immutable else 0o644)
                size_bytes = os.lseek(descriptor, 0, os.SEEK_CUR)
                is_synced = self._is_synced and area.is_durable and not is_lease_key(key)
                if is_synced:
                    sync_to_disk(descriptor)
            finally:
                os.close(descriptor)  # before it appears: a share may tell only now that it has no room
            is_new = self._adopt(key, temporary, replace=replace)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        if is_synced:
            sync_folder(self._path(key).parent)
        self._traffic.add(requests=0, sent_bytes=size_bytes)
        return is_new

    def _adopt(self, key: str, temporary: Path, *, replace: bool) -> bool:
        """A finished file of this folder becomes the value."""
        path = self._path(key)
        try:
            return appear(temporary, path, replace)
        except FileNotFoundError:
            self._make(path.parent)
            return appear(temporary, path, replace)

    def _make(self, folder: Path) -> None:
        if self._may_be_new:
            make(self._root)
        for missing in reversed([folder, *folder.parents]):
            if missing != self._root and missing.is_relative_to(self._root) and not missing.is_dir():
                missing.mkdir(exist_ok=True)
                self._share(missing, 0o2777)

    def _share(self, made: Union[int, Path], most: int) -> None:
        """In a folder that not only its owner may write to, a group's on a share say, what is made is open to the same
        people whatever the umask, or they would keep each other out. `most`: the bits that it can have."""
        mode = S_IMODE(self._root.stat().st_mode) & most
        if mode & 0o022 and S_IMODE(os.stat(made).st_mode) != mode:
            with suppress(PermissionError):  # it is someone else's
                set_mode(made, mode)

    def _remove_left_behind(self) -> None:
        """Once, before the first write: temporary files of writers that were killed."""
        if not self._is_swept:
            self._is_swept = True
            for folder in (self._root, *(self._root / area.name for area in AREAS)):
                with suppress(OSError):
                    remove_left_behind(folder)

    def _temporary(self, key: str) -> Path:
        """In the folder at the top, which may be a link to another disk."""
        top, is_inside, _ = key.partition("/")
        return (self._root / top if is_inside else self._root) / temporary_name()

    def swap(self, key: str, data: bytes, *, expected: Optional[str]) -> str:
        path = self._path(key)
        self._traffic.add()
        with self._translated(key), self._locked():
            try:
                present: Optional[str] = content_id(_read_document(path))
            except FileNotFoundError:
                present = None
            if present != expected:
                raise Conflict(f"{key} in {self.url} was changed by someone else", hint="run the command again")
            self._write(key, data, replace=True)
        return content_id(data)

    def info(self, key: str) -> Optional[Entry]:
        self._traffic.add()
        with self._translated(key):
            try:
                stat = self._path(key).stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return None if S_ISDIR(stat.st_mode) else Entry(key, stat.st_size, stat.st_mtime)

    def list(self, prefix: str) -> Iterator[Entry]:
        self._traffic.add()
        pending = [prefix.rstrip("/")]
        while pending:
            folder = pending.pop()
            try:
                with os.scandir(self._root / folder) as entries:
                    found = sorted(entries, key=lambda entry: entry.name)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise _translate(error, folder, self.url) from error
            for entry in found:
                key = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append(key)
                elif not entry.name.startswith(TEMPORARY_PREFIX) and entry.name != _LOCK_NAME:
                    try:
                        stat = entry.stat()
                    except FileNotFoundError:
                        continue
                    except OSError:  # a link that leads to itself, say; reading the value says why
                        stat = entry.stat(follow_symlinks=False)
                    yield Entry(key, stat.st_size, stat.st_mtime)

    def folders(self, prefix: str) -> Sequence[str]:
        self._traffic.add()
        try:
            with os.scandir(self._root / prefix) as entries:
                return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise _translate(error, prefix, self.url) from error

    def in_the_way(self, key: str) -> Sequence[str]:
        path = self._path(key)
        self._traffic.add()
        with self._translated(key):
            if path.is_dir():
                return [entry.key for entry in self.list(f"{key}/")]
            for parent in path.parents:
                if parent == self._root or parent.is_dir():
                    break
                if parent.exists():
                    return [parent.relative_to(self._root).as_posix()]
        return ()

    def delete(self, key: str, *, guard: Optional[Guard] = None) -> None:
        self._traffic.add()
        if guard is None:
            self._delete(key)
            return
        with self._locked():  # as `swap`, by which the lease would be taken
            try:
                held: Optional[bytes] = self.get(guard.key)
            except NotFound:
                held = None
            if not guard.holds(held):
                raise guard.lost()
            self._delete(key)

    def _delete(self, key: str) -> None:
        path = self._path(key)
        with self._translated(key):
            # A file where a folder should be, or the reverse: the value does not exist.
            with suppress(NotADirectoryError, IsADirectoryError):
                path.unlink(missing_ok=True)
            # An empty folder is nothing to a store; another writer may be filling it right now.
            for parent in list(path.relative_to(self._root).parents)[:-1]:
                try:
                    (self._root / parent).rmdir()
                except OSError:
                    break

    def sweep(self, older_than_s: float) -> int:
        with self._translated(""):
            return sum(remove_left_behind(Path(folder), older_than_s) for folder, _, _ in walk(self._root))

    def local_path(self, key: str) -> Optional[Path]:
        path = self._path(key)
        with self._translated(key):
            return path if path.is_file() else None

    def interrupt(self) -> None:
        """A disk answers soon."""

    def resume(self) -> None:
        """Nothing was interrupted."""

    def _path(self, key: str) -> Path:
        if not is_valid_key(key):
            raise SettingsError(f"{key!r} is not a key of a store")
        return self._root / key

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self._may_be_new:
            make(self._root)
        with locked(self._root / _LOCK_NAME) as descriptor:
            self._share(descriptor, 0o666)
            yield

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise _translate(error, key, self.url) from error


def _read_document(path: Path) -> bytes:
    """A value that is swapped is small: of a larger one, which is damaged, its beginning, so that memory is bounded."""
    with open_regular(path) as file:
        return file.read(_MOST_DOCUMENT_BYTES)


def _is_of_target(error: OSError, target: Path) -> bool:
    """Whose disk a copy has failed on: reading takes no room, and what could not be opened is named."""
    return error.errno in FULL or str(error.filename) == str(target)


def _translate(error: OSError, key: str, url: str) -> AmlctlError:
    if isinstance(error, UnfitFile):
        what = f"{key} in the store {url} is damaged: {error.strerror}"
        return IntegrityError(what, hint=Message(Command("store", "verify"), " lists what is damaged"))
    if isinstance(error, (FileNotFoundError, IsADirectoryError)):
        return NotFound(f"{key} is not in the store {url}")
    if isinstance(error, (NotADirectoryError, FileExistsError)):
        return SettingsError(
            f"the store {url} cannot hold {key}: a file stands where a folder is needed",
            hint="choose another folder",
        )
    error.filename = error.filename or url  # which disk is full
    found = disk_error(
        error, f"{key or 'the folder'} of the store {url}", rights_hint=f"check the owner and the rights of {url}"
    )
    if found is not None:
        return found
    return ServiceUnavailable(f"the store {url} failed at {key}: {error.strerror or error}", hint="try again")
