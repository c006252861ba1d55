"""The one JSON document that `--json` puts on stdout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from amlctl.errors import AmlctlError


def document_bytes(document: Any) -> bytes:
    """Pretty JSON with a final newline, as UTF-8.

    A file name that is no UTF-8 holds lone surrogates; they are written as JSON's own `\\udcXX` escapes.
    """
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8", "backslashreplace")


def document_parts(facts: Mapping[str, Any], key: str, texts: Iterable[str]) -> Iterator[bytes]:
    """`facts` and one more value, a text of any length, as the same kind of document."""
    yield document_bytes(facts).removesuffix(b"\n}\n") + f',\n  {json.dumps(key)}: "'.encode()
    for text in texts:
        yield json.dumps(text, ensure_ascii=False)[1:-1].encode("utf-8", "backslashreplace")
    yield b'"\n}\n'


def error_document(error: AmlctlError) -> dict[str, Any]:
    """`{"error": {"kind", "message", "hint"}}`, with `details` where there are some."""
    facts: dict[str, Any] = {"kind": error.kind, "message": error.message, "hint": error.hint}
    if error.details:
        facts["details"] = list(error.details)
    return {"error": facts}
