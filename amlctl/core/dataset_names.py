"""How a dataset is called in a store: `datasets/<dataset>`, each part spelled so that every store and disk takes it.

Letters, marks, digits, punctuation and symbols stay as they are, so that a name is as long there as here. Escaped as
%XX are the bytes of all else: controls, what URLs and shells treat in their own way, bytes that are not UTF-8, and text
that is not in normal form C, which some disks would change. What counts is fixed by Unicode 3.2, which every Python
has: with the tables of each version the same name would be spelled in two ways.

Format 1 of names escaped every byte of such a part. A dataset that was written so is read there (`old_folder`), and its
next commit goes to the new spelling.
"""

from __future__ import annotations

import re

from amlctl.core.manifest import path_bytes, unescape_path
from amlctl.errors import UsageError

MOST_BYTES = 255
"""Longest name in a folder, on every common file system."""
_PLAIN = re.compile(r"[A-Za-z0-9._+=@,() -]+")
_OURS = frozenset({"HEAD", "shards", "mirror.lease"})
_KEPT_CATEGORIES = frozenset("LMNPS")


def dataset_folder(dataset: str) -> str:
    """Where HEAD, manifests and shards of the dataset are."""
    return "datasets/" + "/".join(map(_spelled, dataset.split("/")))


def old_folder(dataset: str) -> str:
    """Its spelling in format 1; mostly the same."""
    return "datasets/" + "/".join(part if _is_plain(part) else _escaped(part) for part in dataset.split("/"))


def folders_of(dataset: str) -> tuple[str, ...]:
    """The folder that is written to, and the one that may have been."""
    return tuple(dict.fromkeys((dataset_folder(dataset), old_folder(dataset))))


def dataset_of_folder(folder: str) -> str:
    """The dataset whose folder it is, in either spelling."""
    return unescape_path(folder.removeprefix("datasets/"))


def check_dataset_name(dataset: str) -> None:
    """Raises UsageError for a name that no folder can have; a run sees every store as a folder."""
    for part in dataset_folder(dataset).split("/")[1:]:
        if len(part.encode()) > MOST_BYTES:
            raise UsageError(
                f"the dataset name {dataset!r} is too long: {unescape_path(part)!r} takes {len(part.encode())} bytes "
                f"in a store, and the limit is {MOST_BYTES}",
                hint="rename the folder",
            )


def _is_plain(part: str) -> bool:
    return _PLAIN.fullmatch(part) is not None and part not in _OURS and not part.endswith((".gz", "."))


def _escaped(part: str) -> str:
    return "".join(f"%{byte:02X}" for byte in path_bytes(part))


def _spelled(part: str) -> str:
    if _is_plain(part):
        return part
    if part.isascii() and (part in _OURS or part.endswith((".gz", "."))):
        return _escaped(part)
    from unicodedata import ucd_3_2_0  # few names need the tables

    is_normal = ucd_3_2_0.normalize("NFC", part) == part

    def spelled(character: str) -> str:
        if character.isascii():
            is_kept = _PLAIN.fullmatch(character) is not None
        else:
            is_kept = is_normal and ucd_3_2_0.category(character)[0] in _KEPT_CATEGORIES
        return character if is_kept else _escaped(character)

    text = "".join(map(spelled, part))
    return f"{text[:-1]}%2E" if text.endswith(".") else f"{text[:-3]}%2Egz" if text.endswith(".gz") else text
