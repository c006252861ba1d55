"""A program for `WarmCommand`: amlctl with as much memory as a small machine has."""

from __future__ import annotations

import resource

from amlctl.cli import app

MEMORY_BYTES = 1 << 30


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    app.main()
