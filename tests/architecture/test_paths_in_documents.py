"""Documents name files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_PATH = re.compile(r"(?<![\w./])(?:amlctl/[\w/]+\.py|(?:tests|docs|benchmarks)/[\w./-]+)")


@pytest.mark.parametrize(
    "document", sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]), ids=lambda one: one.name
)
def test_paths_in_documents_exist(document: Path) -> None:
    text = document.read_text("utf-8")
    quoted = [words for span in re.findall(r"`([^`\n]+)`", text) for words in _PATH.findall(span)]
    linked = [str((document.parent / link).relative_to(ROOT)) for link in re.findall(r"\]\(([\w./-]+)\)", text)]
    missing = [path for path in (*quoted, *linked) if not (ROOT / path.rstrip(".")).exists()]
    assert missing == []
