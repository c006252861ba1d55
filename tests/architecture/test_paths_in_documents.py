"""Documents name files that exist."""

from __future__ import annotations

import re
import tomllib
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


def test_names_in_the_architecture_exist() -> None:
    """`path.py`: `name` names something that the file has, and the steps of the flows are modules or folders."""
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    named = re.findall(r"`(amlctl/[\w/]+\.py)`: `(\w+)`", text)
    assert [(path, name) for path, name in named if not re.search(rf"\b{name}\b", (ROOT / path).read_text())] == []
    steps = re.findall(r"^    [a-z ]{3,17} (\w+/[\w/]+)", text, re.MULTILINE)
    assert len(steps) > 10
    places = [ROOT / "amlctl" / step for step in steps]
    assert [place for place in places if not (place.is_dir() or place.with_suffix(".py").exists())] == []


def test_the_page_of_a_package_index_has_no_links_into_the_repository() -> None:
    """As the build makes it: an index shows README.md without what lies beside it."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        rules = tomllib.load(file)["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]
    text = (ROOT / "README.md").read_text("utf-8")
    for rule in rules:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    assert "The tutorial (`docs/tutorial.md`) takes" in text
    assert re.findall(r"\]\((?!https://)", text) == []
