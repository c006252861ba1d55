"""Before anything is sent: modules that a script needs to start, and that its environment will not have."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Union

from amlctl.core.events import EventSink, Warned
from amlctl.core.package_names import package_of

_MOST_FILES = 300
_BUILT_IN = frozenset(sys.stdlib_module_names) | {"distutils", "imp", "asyncore", "asynchat", "amlctl", "xxhash"}
"""Of this Python and of older ones, and what every run has."""


def warn_of_missing_modules(
    script: Path, pipeline: Path, has_module: Callable[[str], bool | None], sink: EventSink, *, listed_in: str
) -> None:
    """Follows the imports of the project's own modules. `has_module` answers None where that is not known."""
    known: dict[str, bool] = {}
    for path, one in _foreign(script, pipeline):
        top = one.module.partition(".")[0]
        if top not in known:
            known[top] = has_module(top) is not False
            if not known[top]:
                shown = path.relative_to(pipeline.parent) if path.is_relative_to(pipeline.parent) else path
                what = f"{shown}:{one.line} imports {top}, which the environment will not have"
                sink(Warned(f"{what}: add {package_of(top)} to {listed_in}"))


def _foreign(script: Path, pipeline: Path) -> Iterator[tuple[Path, Import]]:
    """Imports that are neither Python's own nor the project's, with the file that has them."""
    waiting, seen = [script], {script}
    while waiting and len(seen) <= _MOST_FILES:
        path = waiting.pop(0)
        try:
            found = imports(path.read_bytes())
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
            continue  # the script itself was checked before; another module may never be imported
        for one in found:
            own = _own_files(one, path, script.parent, pipeline)
            for file in own:
                if file not in seen:
                    seen.add(file)
                    waiting.append(file)
            if not own and one.level == 0 and one.module.partition(".")[0] not in _BUILT_IN:
                yield path, one


def _own_files(one: Import, importer: Path, *roots: Path) -> list[Path]:
    """Files of the project that the import runs; empty for a module of something else."""
    if one.level:
        above = importer.parents[min(one.level, len(importer.parents)) - 1]
        return [file for file in _candidates(above, one.module) if file.is_file()]
    for root in dict.fromkeys(roots):
        top = root / one.module.partition(".")[0]
        if top.is_dir() or top.with_suffix(".py").is_file():
            # A folder without modules is a namespace package: it is the project's all the same.
            return [file for file in _candidates(root, one.module) if file.is_file()] or [top]
    return []


def _candidates(root: Path, module: str) -> Iterator[Path]:
    parts = [part for part in module.split(".") if part]
    for length in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:length])
        yield place / "__init__.py"
        yield place.with_suffix(".py")


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
