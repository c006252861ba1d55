"""The one JSON document that `--json` puts on stdout."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from amlctl.errors import AmlctlError


def document_bytes(document: Any) -> bytes:
    """Pretty JSON with a final newline, as UTF-8.

    A file name that is no UTF-8 holds lone surrogates; they are written as JSON's own `\\udcXX` escapes.
    """
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8", "backslashreplace")


def error_document(error: AmlctlError, in_words: Callable[[str], str]) -> dict[str, Any]:
    """`{"error": {"kind", "message", "hint"}}`, with `details` where there are some.

    `in_words` makes the commands in the texts ready to be typed.
    """
    facts: dict[str, Any] = {"kind": error.kind, "message": in_words(error.message), "hint": in_words(error.hint)}
    if error.details:
        facts["details"] = list(error.details)
    return {"error": facts}
