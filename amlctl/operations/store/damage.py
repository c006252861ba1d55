"""What is wrong with a value of a store, and a listing of all that a store holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass

from amlctl.core.content_id import content_id
from amlctl.core.document import MOST_BYTES, gunzip
from amlctl.core.manifest import FileEntry, StoredAt
from amlctl.core.message import Message
from amlctl.core.pack import GZIP_HEAD
from amlctl.core.store_keys import FORMAT_KEY, area_of, is_lease_key, pack_key
from amlctl.errors import AmlctlError, IntegrityError, NotFound, RightsError, ServiceUnavailable, SettingsError
from amlctl.snapshots.contents import checked, stored_content_id
from amlctl.stores.contract import Store


@dataclass(frozen=True)
class Damage:
    """`repair` is the command that repairs it, or what to do; `dataset` the dataset that it belongs to, if any."""

    key: str
    what: str
    repair: str
    dataset: str = ""

    @property
    def message(self) -> Message:
        return Message(f"{self.key}: {self.what}; to repair: ", self.repair)


def is_of_one_value(store: Store, error: AmlctlError) -> bool:
    """Whether this value is damaged, or the disk of a folder store does not give its bytes, while others may be fine.
    An error of the network concerns all values."""
    is_of_disk = store.folder is not None and isinstance(error.__cause__, OSError)
    is_of_store = isinstance(error, (RightsError, SettingsError, ServiceUnavailable))
    return isinstance(error, IntegrityError) or (is_of_disk and is_of_store)


def damaged_bytes(
    store: Store, key: str, wanted: Container[str], *, wrong: str, repair: str, missing: str = "", dataset: str = ""
) -> list[Damage]:
    """Whether the value has the content of one of these ids; `wrong` and `missing` say what it is else. Without
    `missing` it may be missing: a gc has removed it in the meantime, or the listing has shown that."""
    try:
        is_right = stored_content_id(store, key) in wanted
    except NotFound:
        return [Damage(key, missing, repair, dataset)] if missing else []
    except AmlctlError as error:
        return [Damage(key, f"cannot be read: {unreadable(store, error)}", repair, dataset)]
    return [] if is_right else [Damage(key, wrong, repair, dataset)]


def unreadable(store: Store, error: AmlctlError) -> str:
    """What is wrong with a value that the store does not give; raises the error where it concerns others, too."""
    if not is_of_one_value(store, error):
        raise error
    return error.message


Member = tuple[FileEntry, StoredAt]
"""A file of a pack, and where it is in it."""


def read_pack(
    store: Store, dataset: str, pack: str, size_bytes: int, members: Iterable[Member]
) -> tuple[bool, list[FileEntry]]:
    """Whether its bytes are those of its name, and the files whose bytes in it are wrong. Of a pack that is larger than
    the manifests say, the rest is not read. Raises NotFound."""
    data = store.get(pack_key(pack), length=size_bytes + 1)
    bad = [entry for entry, place in members if not _is_right(dataset, entry, place, data)]
    return content_id(data) == pack, bad


def _is_right(dataset: str, entry: FileEntry, place: StoredAt, data: bytes) -> bool:
    stored = memoryview(data)[place.offset : place.offset + place.length]
    try:
        checked(dataset, entry, stored, place)
    except IntegrityError:
        return False
    return len(stored) == place.length


def is_whole_shard(store: Store, key: str) -> bool:
    """Raises NotFound."""
    try:
        data = store.get(key, length=MOST_BYTES)
        return data.startswith(GZIP_HEAD) and key.endswith(f"/{content_id(gunzip(data))}.gz")
    except (ValueError, IntegrityError):
        return False


class StoreListing:
    """Every key with the size of its value in bytes. What no check has marked is reported as unchecked."""

    def __init__(self, store: Store) -> None:
        # A mount leaves empty blobs that stand for folders among packs and objects, of which none is empty.
        self.sizes = {
            entry.key: entry.size_bytes
            for entry in store.list("")
            if entry.size_bytes or not area_of(entry.key).is_immutable or store.info(entry.key) is not None
        }
        self._checked: set[str] = set()

    def below(self, prefix: str) -> list[str]:
        return sorted(key for key in self.sizes if key.startswith(prefix))

    def mark(self, *keys: str) -> None:
        """These are checked."""
        self._checked.update(keys)

    def unchecked(self) -> list[str]:
        """How many values of each kind have nothing that they could be checked against."""
        kinds = Counter(_kind(key) for key in self.sizes.keys() - self._checked)
        return [f"{kind}: {number}" for kind, number in sorted(kinds.items()) if kind]


def _kind(key: str) -> str:
    parts = key.split("/")
    if area_of(key).name == "gc" or key == FORMAT_KEY or is_lease_key(key):
        return ""  # damage of these heals by itself, or is reported elsewhere
    if parts[0] == "runs" and len(parts) > 2:
        return f"runs/*/{parts[2]}"
    return f"{parts[0]}/*"
