"""The bytes of a run's config, from its record."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Optional

from amlctl.core.hidden_values import filled, filled_text
from amlctl.core.run import RunRecord
from amlctl.errors import SettingsError

CONFIG_ENCODINGS = ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")


def config_bytes(record: RunRecord, secrets: Optional[Mapping[str, str]]) -> bytes:
    """The file that the script gets; with None instead of secrets, their places stay. Raises SettingsError."""
    kept, content = record.config_file, record.config_content
    if kept is not None:
        return _kept_bytes(record.run, kept, secrets)
    if isinstance(content, str) and not (record.config or "").endswith(".json"):
        return (content if secrets is None else filled_text(content, secrets)).encode("utf-8", "surrogateescape")
    document = content if secrets is None else filled(content, secrets)
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def _kept_bytes(run: str, kept: Mapping[str, str], secrets: Optional[Mapping[str, str]]) -> bytes:
    try:
        if "base64" in kept:
            return base64.b64decode(kept["base64"], validate=True)
        if kept["encoding"] in CONFIG_ENCODINGS:
            text = kept["text"] if secrets is None else filled_text(kept["text"], secrets)
            return text.encode(kept["encoding"])
    except (KeyError, ValueError, AttributeError, TypeError):
        pass
    raise SettingsError(f"the config in the record of run {run} is damaged", hint="submit it again")
