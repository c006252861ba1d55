"""Before anything is sent: modules that a script needs to start, and that its run will not have."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple, Union

from amlctl.core.events import EventSink, Warned
from amlctl.core.package_names import package_of
from amlctl.localfs.code_rules import CodeRules
from amlctl.localfs.project import Project
from amlctl.operations.not_sent import is_empty, left_out, module_files, module_left_out

_MOST_FILES = 300
_BUILT_IN = frozenset(sys.stdlib_module_names) | {"distutils", "imp", "asyncore", "asynchat", "amlctl", "xxhash"}
"""Of this Python and of older ones, and what every run has."""


def warn_of_missing_modules(
    script: Path,
    project: Project,
    rules: CodeRules,
    has_module: Callable[[str], bool | None],
    sink: EventSink,
    *,
    listed_in: str,
) -> None:
    """Follows the imports of the project's own modules. `has_module` answers None where that is not known."""
    in_environment, why_not_sent = cache(has_module), cache(partial(left_out, project, rules))
    warned: set[str] = set()
    for path, one, own in _followed(script, project.pipeline_dir):
        top = one.module.partition(".")[0]
        if path == script and one.level:
            top, why = ".", f"which fails in a script: import {one.module} without the dots" if one.module else ""
        elif own and not is_empty(own[-1]):
            why = next((f"but {why}" for file in own if (why := why_not_sent(file))), "")
            why = "" if one.level == 0 and why and in_environment(top) else why
        elif one.level == 0 and (
            in_environment(top) is False or one.module.startswith(f"{project.pipeline_dir.name}.")
        ):
            found = module_left_out(project, rules, one.module, script)
            adding = f"which the environment will not have: add {package_of(top)} to {listed_in}"
            why = f"but {found}" if found else adding if in_environment(top) is False else ""
        else:
            continue
        if why and not {top, why} & warned:
            warned |= {top, why}
            shown = path.relative_to(project.root) if path.is_relative_to(project.root) else path
            sink(Warned(f"{shown}:{one.line} imports {'.' * one.level}{one.module}, {why}"))


def _followed(script: Path, pipeline: Path) -> Iterator[tuple[Path, Import, Sequence[Path]]]:
    """Imports that are not Python's own, with the file that has them, and the files of the project that they run."""
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
            if own or one.level or one.module.partition(".")[0] not in _BUILT_IN:
                yield path, one, own


def _own_files(one: Import, importer: Path, *roots: Path) -> list[Path]:
    """Files of the project that the import runs; empty for a module of something else."""
    if one.level:
        above = importer.parents[min(one.level, len(importer.parents)) - 1]
        return [file for file in module_files(above, one.module) if file.is_file()]
    for root in dict.fromkeys(roots):
        top = root / one.module.partition(".")[0]
        if top.is_dir() or top.with_suffix(".py").is_file():
            # A folder without modules is a namespace package: it is the project's all the same.
            return [file for file in module_files(root, one.module) if file.is_file()] or [top]
    return []


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
