"""The one JSON document that `--json` puts on stdout."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from amlctl.core.message import commands_in
from amlctl.errors import AmlctlError

_UNPRINTABLE = "[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
"""C1 controls are commands to a terminal; direction marks make it show another text."""


def document_bytes(document: Any) -> bytes:
    """Pretty JSON with a final newline, as UTF-8.

    Lone surrogates (of a file name that is not UTF-8) are written as JSON's own `\\udcXX` escapes, and so are other
    characters that a terminal would not show. A number that JSON does not have becomes its name.
    """
    try:
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(document), indent=2, ensure_ascii=False, allow_nan=False)
    if not text.isascii() or "\x7f" in text:
        text = re.sub(_UNPRINTABLE, _escaped, text)
    return (text + "\n").encode("utf-8", "backslashreplace")


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


def document_parts(facts: Mapping[str, Any], key: str, texts: Iterable[str]) -> Iterator[bytes]:
    """`facts` and one more value, a text of any length, as the same kind of document."""
    yield document_bytes(facts).removesuffix(b"\n}\n") + f',\n  {json.dumps(key)}: "'.encode()
    for text in texts:
        part = re.sub(_UNPRINTABLE, _escaped, json.dumps(text, ensure_ascii=False)[1:-1])
        yield part.encode("utf-8", "backslashreplace")
    yield b'"\n}\n'


def error_document(error: AmlctlError, in_words: Callable[[str], str]) -> dict[str, Any]:
    """`{"error": {"kind", "message", "hint", "next"}}` and `details`, if any; `in_words` makes commands ready to type.

    `next` has the commands of the hint.
    """
    facts: dict[str, Any] = {"kind": error.kind, "message": in_words(error.message), "hint": in_words(error.hint)}
    facts["next"] = list(map(in_words, commands_in(error.hint)))
    if error.details:
        facts["details"] = list(map(in_words, error.details))
    return {"error": facts}
