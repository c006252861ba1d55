"""Which modules a script needs to start: imports that it cannot do without."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Union


class Import(NamedTuple):
    """`level` counts the dots of a relative import."""

    module: str
    line: int
    level: int = 0


def imports(source: Union[bytes, str]) -> list[Import]:
    """In the order of the file. Left out: those in functions, which may never be called, and those that the script
    expects to fail or to do without: in `try` with a handler, or below a condition such as `TYPE_CHECKING`.

    Raises SyntaxError, ValueError."""
    return list(_needed(ast.parse(source).body))


def _needed(body: Sequence[ast.stmt]) -> Iterator[Import]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from _from(node)
        elif isinstance(node, ast.If):
            if not _depends(node.test):
                yield from _needed([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            if not node.handlers:
                yield from _needed(node.body)
            yield from _needed(node.finalbody)
        elif isinstance(node, (ast.With, ast.ClassDef)):
            yield from _needed(node.body)


def _from(node: ast.ImportFrom) -> Iterator[Import]:
    yield Import(node.module or "", node.lineno, node.level)
    inside = f"{node.module}." if node.module else ""  # what is imported from a package may be a module, too
    yield from (Import(inside + alias.name, node.lineno, node.level) for alias in node.names if alias.name != "*")


def _depends(test: ast.expr) -> bool:
    """Whether a run may be without what the condition guards: all but `if __name__ == "__main__"`."""
    return not any(isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(test))
