"""HTML from templates: every value is escaped unless it is markup already."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape


class Markup(str):
    """Text that is HTML."""


def markup(template: str, *values: object) -> Markup:
    """`template` is ours; `{}` in it stand for the values."""
    return Markup(template.format(*map(_escaped, values)))


def joined(parts: Iterable[Markup]) -> Markup:
    return Markup("".join(parts))


def _escaped(value: object) -> str:
    if isinstance(value, Markup):
        return value
    text = "" if value is None else str(value)
    # Control characters are not allowed in HTML; surrogates stand for bytes that are not UTF-8.
    shown = "".join(one if one.isprintable() or one in "\t\n" else "\ufffd" for one in text)
    return escape(shown)
