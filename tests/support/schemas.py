"""What `--json` prints is held against the schema of its command, in which no field may be missing or more."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import referencing

from amlctl.cli.arguments import hoist, with_submit
from docs.documents import DOCUMENTS

FOLDER = Path(__file__).parents[2] / "docs/schemas"
SCHEMAS: dict[str, Any] = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.json")}

_SHORT = {"-f": "--follow", "-V": "--version"}
_COMMANDS = sorted(
    ((command.split(), document.name) for document in DOCUMENTS for command in document.commands),
    key=lambda one: -len(one[0]),
)


def document_of(arguments: Sequence[str]) -> str:
    """The name of the document that the command prints if it succeeds."""
    options = {_SHORT.get(word, word) for word in arguments}
    words = with_submit(hoist(arguments)[1])
    for command, name in _COMMANDS:
        names = [word for word in command if not word.startswith("-")]
        if words[: len(names)] == names and options.issuperset(command[len(names) :]):
            return name
    assert words[0] == "runs", arguments
    return "runs"


def check_document(name: str, document: Any) -> None:
    """Raises jsonschema.ValidationError."""
    _validators()[name].validate(document)


@functools.cache
def _validators() -> dict[str, Any]:
    closed = {f"{name}.json": _closed(schema) for name, schema in SCHEMAS.items()}
    registry = referencing.Registry().with_resources(
        (name, referencing.Resource.from_contents(schema)) for name, schema in closed.items()
    )
    return {name: jsonschema.Draft202012Validator(closed[f"{name}.json"], registry=registry) for name in SCHEMAS}


def _closed(schema: Any) -> Any:
    """The schema for documents of this version, which have no further fields."""
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: _closed(value) for key, value in schema.items()}
    return {"additionalProperties": False, **inner} if "properties" in schema and "type" in schema else inner
