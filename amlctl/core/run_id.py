"""Run ids: `<name>-YYYYMMDD-HHMMSS-<4 hex>`, a legal job name on Azure ML and a legal folder name everywhere."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime

MAX_LENGTH = 60
"""Characters. Azure ML allows far more; longer ids do not fit a table of 80 columns."""

_SUFFIX_LENGTH = len("-20260101-120000-0a1b")

MAX_NAME = MAX_LENGTH - _SUFFIX_LENGTH
"""Characters of the name at the beginning of an id."""


def slug(text: str) -> str:
    """`text` in ASCII letters, digits, `-` and `_`, beginning with a letter or digit; `run` if nothing is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    cleaned = re.sub(r"-{2,}", "-", re.sub(r"[^A-Za-z0-9_-]+", "-", plain))
    return cleaned.strip("-_")[:MAX_NAME].rstrip("-_") or "run"


def new_run_id(name: str, now: datetime, random_hex: str) -> str:
    """A new id; `now` is shown as it is (UTC by convention), `random_hex` has at least four hex digits."""
    return f"{slug(name)}-{now:%Y%m%d-%H%M%S}-{random_hex[:4]}"
