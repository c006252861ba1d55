"""The stores that this project has used, by URL: their ids, and which datasets they had when they were last listed.

So a store that is gone is not taken for an empty one, and completion makes no request.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Optional

from amlctl.core.document import Fields
from amlctl.localfs.atomic import kept_json, write_json

_MOST_STORES = 32


class KnownStore(NamedTuple):
    """`id` is empty where no dataset was synced with it from here."""

    id: str = ""
    datasets: tuple[str, ...] = ()


def known_store(state_dir: Path, url: str) -> Optional[KnownStore]:
    """None for one that this project has not used."""
    return _read(state_dir).get(url)


def remember_store(
    state_dir: Path,
    url: str,
    *,
    store_id: Optional[str] = None,
    datasets: Optional[Collection[str]] = None,
) -> None:
    """It is in use, unless an empty list of datasets is all that is known. A project that cannot be written remembers
    nothing."""
    known = _read(state_dir)
    before = known.pop(url, None)
    if before is None and datasets is not None and not datasets:
        return
    now = before or KnownStore()
    if store_id is not None:
        now = now._replace(id=store_id)
    if datasets is not None:
        now = now._replace(datasets=tuple(sorted(datasets)))
    if now != before and state_dir.is_dir():
        newest = [(url, now), *known.items()][:_MOST_STORES]
        with suppress(OSError, ValueError):  # a name that is not text
            write_json(_path(state_dir), {url: one._asdict() for url, one in newest})


def remembered_datasets(state_dir: Path) -> list[str]:
    """Of all stores."""
    return sorted({name for one in _read(state_dir).values() for name in one.datasets})


def _read(state_dir: Path) -> dict[str, KnownStore]:
    """Without what is damaged."""
    found = {}
    for url, document in kept_json(_path(state_dir)).items():
        with suppress(ValueError):
            fields = Fields(document)
            names = [name for name in fields.array("datasets") if isinstance(name, str)]
            found[url] = KnownStore(fields.text("id"), tuple(names))
    return found


def _path(state_dir: Path) -> Path:
    return state_dir / "stores.json"
