from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.runtime_node import Node


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)
