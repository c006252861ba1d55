"""No message holds a command as text: it would lack the options of the call, or gain them where none are meant."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import amlctl
from amlctl.cli.command_group import COMMANDS

ROOT = Path(amlctl.__file__).parent
_NAMED = re.compile(rf"\bamlctl (--\w[\w-]* \S+ )*(--\w|({'|'.join(COMMANDS)})\b)")
_LABELS = frozenset({"local_state", "Option", "command", "examples", "option"})
"""Calls whose texts are labels of a lock, help pages and their examples: what was typed has no place in them."""


def command_texts(source: str) -> Iterator[tuple[int, str]]:
    tree = ast.parse(source)
    skipped: set[int] = set()
    for node in ast.walk(tree):
        is_label = isinstance(node, ast.Call) and _name(node.func) in _LABELS
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_help = isinstance(node, ast.Assign) and _name(node.targets[0]) in ("_EPILOG",)
        is_epilog = isinstance(node, ast.keyword) and node.arg == "epilog"
        if is_label or is_docstring or is_help or is_epilog:
            skipped.update(map(id, ast.walk(node)))
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.JoinedStr):
            skipped.update(map(id, node.values))
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if _NAMED.search(text):
            yield node.lineno, text


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def lost_parts(source: str) -> Iterator[int]:
    """F-strings over a hint or a command: what comes out is plain text, whose commands no edge finds any more."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FormattedValue):
            value = node.value
            is_made = isinstance(value, ast.Call) and _name(value.func) in ("Message", "repair_command")
            if is_made or (isinstance(value, (ast.Attribute, ast.Name)) and _name(value) == "hint"):
                yield node.lineno


def sources() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def test_commands_in_messages_are_data() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in sources()
        for line, text in command_texts(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_the_check_sees_a_command_in_a_text() -> None:
    assert list(command_texts('raise E("x", hint=f"amlctl sync --pull {path}")'))
    assert list(command_texts('sink(Note("then: amlctl --workspace x runs"))'))
    assert not list(command_texts('raise E("amlctl keeps the name", hint=Command("sync"))'))


def test_hints_stay_data_until_the_edge() -> None:
    """What goes into a log or a record, on a node say, has no edge: no call gives it options."""
    at_rest = {"runtime/node.py", "workspaces/local/ending.py", "config/settings.py"}
    at_rest.add("cli/commands/doctor.py")  # doctor's command has made words of them before
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sources()
        if path.relative_to(ROOT).as_posix() not in at_rest
        for line in lost_parts(path.read_text(encoding="utf-8"))
    ]
    assert found == []
