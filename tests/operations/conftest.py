from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bench import Bench, make_bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Whatever a test leaves running is ended with it."""
    made = make_bench(tmp_path / "a project")
    yield made
    for record in made.workspace.list_runs():
        made.workspace.cancel(record.run)
