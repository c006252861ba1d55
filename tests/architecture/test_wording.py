"""Plain English everywhere: messages, help texts, docstrings, comments, names, documents.

One folder alone: `python -m pytest tests/architecture/test_wording.py -k amlctl/runs`.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_WORDS = (
    "anew",
    "mend(s|ed|ing)?",
    "told as such",
    "(be|get|gets|got) rid of",
    "nobody",
    "(whoever|whomever|whom)",
    r"(is|are|was|were|be) no (?!longer\b|more than\b|less than\b)\S+",
    "there (is|are|was|were) none",
    "all( is)? well",
    "none of",
    "be had",
    "(go|goes|going|gone|went) on",
    "(come|comes|came) to be",
    "(unkept|misplaced|same_place)",
    # American spelling, as Azure ML and the libraries have it
    "(cancelled|cancelling|travelled|travelling|labelled|labelling|modelled|modelling)",
    "(centre|catalogue|licence|grey)",
)
_PARTS = (
    "(colour|behaviour|neighbour|favour|honour)",
    r"(recogni|initiali|materiali|seriali|normali|summari|minimi|optimi|organi)s(e|ed|es|ing|ation)(?!\w)",
)
FORBIDDEN = re.compile(rf"\b({'|'.join(_WORDS)})(?!\w)|{'|'.join(_PARTS)}".replace(" ", r"\s+"), re.I)

NAMES = re.compile(
    "(^|_)(anew|mend(s|ed)?|told|unkept|misplaced|nobody|whoever|same_place|is_no)(_|$)|colour|behaviour|neighbour",
    re.I,
)
"""What no variable, function or class is called."""


def _texts(source: str, tokens: Sequence[tokenize.TokenInfo]) -> Iterator[tuple[int, str]]:
    """Line and text of the strings and comments."""
    parts: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts.update(map(id, node.values))
            yield node.lineno, "".join(str(one.value) if isinstance(one, ast.Constant) else "{}" for one in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.lineno, node.value
    comment, begin = "", 0
    for token in tokens:
        if token.type == tokenize.COMMENT:
            line = token.start[0]
            if line != begin + comment.count("\n") + 1 or not comment:
                yield begin, comment
                comment, begin = token.string, line
            else:
                comment += "\n" + token.string[1:]
    yield begin, comment


def findings(path: Path) -> list[str]:
    """`file:line: the words and what is around them`, in order."""
    found: set[tuple[int, str]] = set()
    source = path.read_text(encoding="utf-8")
    is_code = path.suffix == ".py"
    tokens = [*tokenize.generate_tokens(io.StringIO(source).readline)] if is_code else []
    for line, text in _texts(source, tokens) if is_code else [(1, source)]:
        for match in FORBIDDEN.finditer(text):
            around = " ".join(text[max(match.start() - 30, 0) : match.end() + 30].split())
            found.add((line + text.count("\n", 0, match.start()), f"{match[0]!r} in “{around}”"))
    for token in tokens:
        words = token.string.replace("_", " ") if token.string.startswith("test_") else ""
        if token.type == tokenize.NAME and (NAMES.search(token.string) or FORBIDDEN.search(words)):
            found.add((token.start[0], f"the name {token.string}"))
    return [f"{path.relative_to(ROOT)}:{line}: {what}" for line, what in sorted(found)]


def _area(path: Path) -> str:
    top, *below = path.relative_to(ROOT).parts[:-1] or (path.name,)
    if top != "amlctl" or not below:
        return str(path.relative_to(ROOT)) if top == "amlctl" else top
    return "/".join([top, *below[: 2 if below[0] in ("operations", "stores", "workspaces") else 1]])


def _areas() -> dict[str, list[Path]]:
    areas: dict[str, list[Path]] = {}
    paths = [ROOT / name for name in ("README.md", "CHANGELOG.md", "demo.sh", "setup.sh")]
    for folder in ("amlctl", "benchmarks", "docs", "pipeline", "tests"):
        paths += (path for path in sorted((ROOT / folder).rglob("*")) if path.suffix in (".py", ".md"))
    for path in paths:
        if path != Path(__file__):
            areas.setdefault(_area(path), []).append(path)
    return areas


AREAS = _areas()


@pytest.mark.parametrize("area", AREAS)
def test_plain_english(area: str) -> None:
    assert [line for path in AREAS[area] for line in findings(path)] == []


def test_the_check_sees_what_is_forbidden() -> None:
    for text in ("X is no\n dataset", "Nobody is there", "the colour", "none of them", "mends it"):
        assert FORBIDDEN.search(text), text
    for text in ("X is no longer there", "amend", "recommended", "no file", "it is not one"):
        assert not FORBIDDEN.search(text), text
