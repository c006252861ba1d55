"""Makes types of documents: from classes, but for some of their fields, and field by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict, get_type_hints

from amlctl.core.manifest import StoredLayout
from amlctl.core.settings import Mode


def typed(name: str, about: str | None, fields: Mapping[str, Any]) -> Any:
    found: Any = TypedDict(name, dict(fields))  # type: ignore[misc]
    found.__doc__ = about
    return found


def hints_of(source: type) -> dict[str, Any]:
    return get_type_hints(source, localns={"Mode": Mode, "StoredLayout": StoredLayout})


def like(
    source: type, *, about: str | None = None, without: Sequence[str] = (), optional: Sequence[str] = (), **others: Any
) -> Any:
    """A document with the fields of a class, but for those named."""
    fields = {
        name: NotRequired[kind] if name in optional else kind
        for name, kind in hints_of(source).items()
        if name not in without
    }
    return typed(source.__name__, about or source.__doc__, fields | others)
