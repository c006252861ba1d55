"""Run ids: `<name>-YYYYMMDD-HHMMSS-<4 hex>`, a legal job name on Azure ML and a legal folder name everywhere.

Also the order of runs, and which run a user means with `@last` or the beginning of an id.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from amlctl.core.message import Command, Message, count
from amlctl.errors import NotFound, UsageError

if TYPE_CHECKING:
    from amlctl.core.run import RunRecord

MAX_LENGTH = 60
"""Characters. Azure ML allows far more; longer ids do not fit a table of 80 columns."""

_SUFFIX_LENGTH = len("-20260101-120000-0a1b")

MAX_NAME = MAX_LENGTH - _SUFFIX_LENGTH
"""Characters of the name at the beginning of an id."""

_RECORDED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}")


def is_record_run_id(value: object) -> bool:
    """Whether a record can have this id: other tools make longer ones in Azure ML."""
    return isinstance(value, str) and _RECORDED.fullmatch(value) is not None


def slug(text: str) -> str:
    """`text` in ASCII letters, digits, `-` and `_`, beginning with a letter or digit; `run` if nothing is left."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    cleaned = re.sub(r"-{2,}", "-", re.sub(r"[^A-Za-z0-9_-]+", "-", plain))
    return cleaned.strip("-_")[:MAX_NAME].rstrip("-_") or "run"


def new_run_id(name: str, now: datetime, random_hex: str) -> str:
    """A new id; `now` is shown as it is (UTC by convention), `random_hex` has at least four hex digits."""
    return f"{slug(name)}-{now:%Y%m%d-%H%M%S}-{random_hex[:4]}"


def newest_first(records: Iterable[RunRecord], made: Sequence[str]) -> list[RunRecord]:
    """Newest first. `made` are ids in the order in which runs were created from this machine.

    A run cannot be newer than the one created next from here, so a later time is wrong and ignored; runs of others are
    sorted in by their times. Those of a sweep follow their parent, in order.
    """
    place = {run: number for number, run in enumerate(made)}
    found = sorted(records, key=lambda record: place.get(record.run, -1), reverse=True)
    keys: dict[str, tuple[str, int, str]] = {}
    latest = "9999"
    for record in found:
        number = place.get(record.run, -1)
        at = _in_utc(record.created_at)
        if number >= 0 and at:
            latest = at = min(at, latest)
        keys[record.run] = (at, number, record.run)

    def key(run: str) -> tuple[str, int, str, int]:
        parent, number = parent_of(run)
        return (*keys[parent], -1 - number) if parent in keys else (*keys[run], 0)

    return sorted(found, key=lambda record: key(record.run), reverse=True)


def child_id(parent: str, number: int) -> str:
    """As Azure ML names the runs of a sweep."""
    return f"{parent}_{number}"


def parent_of(run: str) -> tuple[str, int]:
    """The id that the parent would have, if it is a run of a sweep, and its number; empty for any other id."""
    parent, _, number = run.rpartition("_")
    is_number = number.isascii() and number.isdigit() and len(number) < 10
    return (parent, int(number)) if is_number else ("", 0)


def _in_utc(time: str) -> str:
    try:
        at = datetime.fromisoformat(time)
        return at.astimezone(timezone.utc).isoformat(timespec="microseconds") if at.tzinfo else time
    except (ValueError, OverflowError):
        return time


def find_run(reference: str, ids_newest_first: Sequence[str]) -> str:
    """The run id that RUN names: an id, a unique prefix of one, `@last` or `@N` (N-th from the newest).

    Raises NotFound or, for an ambiguous prefix, UsageError.
    """
    if reference.startswith("@"):
        digits = reference[1:]
        is_number = digits.isascii() and digits.isdigit() and len(digits) < 10
        position = 1 if reference == "@last" else int(digits) if is_number else 0
        if position < 1:
            raise UsageError(f"{reference!r} names no run", hint="use a run id, @last, or @2 for the one before")
        if not ids_newest_first:
            hint = Message("run a script: ", Command("submit", "SCRIPT"), "; runs of others: ", Command("runs"))
            raise NotFound("no run was submitted from this project folder", hint=hint)
        if position > len(ids_newest_first):
            made = count(len(ids_newest_first), "run")
            raise NotFound(f"{reference} is out of range: this project has made {made}", hint=Command("runs"))
        return ids_newest_first[position - 1]
    if reference in ids_newest_first:
        return reference
    matches = [run for run in ids_newest_first if reference and run.startswith(reference)]
    matches = [run for run in matches if parent_of(run)[0] not in matches]
    if not matches:
        raise NotFound(f"Run {reference!r} not found", hint=Command("runs"))
    if len(matches) > 1:
        raise UsageError(
            f"{reference!r} is the beginning of {len(matches)} runs",
            hint="use a longer prefix",
            details=matches[:10],
        )
    return matches[0]
