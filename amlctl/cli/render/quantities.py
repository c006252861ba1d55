"""Sizes, durations and moments as people read them."""

from __future__ import annotations

from datetime import datetime

from amlctl.core.wording import size as size


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _pair(whole // 60, "min", whole % 60, "s")
    if whole < 86400:
        return _pair(whole // 3600, "h", whole % 3600 // 60, "min")
    return _pair(whole // 86400, "d", whole % 86400 // 3600, "h")


def time_left(seconds: float) -> str:
    """As `duration`, in whole seconds and never nothing."""
    whole = max(1, round(seconds))
    return f"{whole} s" if whole < 60 else duration(whole)


def _pair(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large} {large_unit} {small} {small_unit}" if small else f"{large} {large_unit}"


def moment(iso: str) -> str:
    """An ISO 8601 moment in local time, to the second; what is no moment stays as it is."""
    try:
        return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return iso


def between(start_iso: str, end_iso: str) -> str:
    """The time between two ISO 8601 moments; empty where one is missing."""
    try:
        return duration((datetime.fromisoformat(end_iso) - datetime.fromisoformat(start_iso)).total_seconds())
    except (ValueError, TypeError):
        return ""
