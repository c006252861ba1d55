"""Moments for what takes the time as an argument."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

NOW = datetime.now(UTC)
YEAR_LATER = NOW + timedelta(days=365)
"""When everything that exists is older than any safety margin."""
