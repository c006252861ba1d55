"""Which datasets stores had when they were last listed from this project: for completion, which makes no request."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from amlctl.errors import SettingsError
from amlctl.localfs.atomic import read_json, write_json

_MOST_STORES = 8


def remember_stored(state_dir: Path, store: str, names: Iterable[str]) -> None:
    """`store`: its URL. A project that cannot be written remembers nothing."""
    known = {url: found for url, found in _read(state_dir).items() if url != store}
    newest = {store: sorted(names), **known}
    if state_dir.is_dir():
        with suppress(OSError, ValueError):  # a name that is not text
            write_json(_path(state_dir), dict([*newest.items()][:_MOST_STORES]))


def remembered_names(state_dir: Path) -> list[str]:
    """Of all stores."""
    return sorted({name for names in _read(state_dir).values() for name in names})


def _read(state_dir: Path) -> dict[str, list[str]]:
    try:
        document = read_json(_path(state_dir))
        return {str(url): [name for name in names if isinstance(name, str)] for url, names in document.items()}
    except (OSError, SettingsError, AttributeError, TypeError):
        return {}


def _path(state_dir: Path) -> Path:
    return state_dir / "cache" / "stored-datasets.json"
