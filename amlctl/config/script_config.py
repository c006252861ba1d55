"""What a script brings along: its inline block, and its config, which is passed on byte for byte; `--set` changes
values of JSON and YAML.

Only files that every reader of their format refuses are refused before the run: broken JSON or YAML, and invalid dates.
Anything else (tags, several documents, comments in JSON, templates, other encodings) is left to the script.
"""

from __future__ import annotations

import base64
import codecs
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import xxhash

from amlctl.config.config_edit import Hide, with_overrides
from amlctl.config.environment_file import python_specifiers
from amlctl.config.json_nodes import json_documents
from amlctl.config.nodes import MAX_EXPANDED, Kind, Node, check_expanded, plain_value, yaml_documents
from amlctl.config.pip_list import PipList
from amlctl.config.text_file import TextDocument, parse_toml, read_bytes
from amlctl.config.yaml_scalars import date_error, is_date
from amlctl.core.environment import EnvironmentSpec
from amlctl.core.message import did_you_mean
from amlctl.core.run import CONFIG_ENCODINGS, PartialSpec, RunSpec, config_bytes
from amlctl.core.run_schema import is_shallow
from amlctl.errors import BeyondBounds, SettingsError, UsageError

YAML_SUFFIXES = (".yaml", ".yml")
JSON_SUFFIX = ".json"
MAX_BYTES = 4 << 20
"""The config is part of the run's record, which every list of runs reads."""

_MOST_SHOWN = 2_000
_TEMPLATE = re.compile(r"\{\{|\{%|<%|\$\{")
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def read_config(path: Path, shown: str) -> bytes:
    """Raises SettingsError (too large), NotFound, RightsError; `shown` names it in errors."""
    return read_bytes(path, shown, limit=MAX_BYTES)


def record_config(data: bytes, name: str, overrides: Sequence[str], hide: Hide) -> RunSpec:
    """What a spec has of a config, with `overrides` applied. Raises SettingsError, UsageError."""
    text, encoding = _decoded(data)
    if text is None:
        if overrides:
            raise SettingsError(f"{name} is not UTF-8 text, so --set cannot change it", hint="save it as UTF-8")
        return RunSpec(config=name, config_file={"base64": base64.b64encode(data).decode()})
    if overrides:
        if not name.lower().endswith((*YAML_SUFFIXES, JSON_SUFFIX)):
            _require_json(text, name)
        text = with_overrides(text, name, overrides, hide, is_yaml=name.lower().endswith(YAML_SUFFIXES))
    else:
        _check(text, name)
    spec = RunSpec(config=name, config_content=_content(text, name))
    is_as_written = config_bytes(spec, None) == text.encode(encoding)
    return spec if is_as_written else replace(spec, config_file={"text": text, "encoding": encoding})


def _require_json(text: str, name: str) -> None:
    """For a config whose name does not tell its format. Raises UsageError."""
    try:
        json_documents(text, name)
    except SettingsError as error:
        raise UsageError(
            f"{name} is neither JSON nor YAML, so --set cannot change it",
            hint="edit the file, or give the value to the script behind --",
        ) from error


def config_values(spec: RunSpec) -> Any:
    """What to show of a run's config: its values, or a summary where they cannot be read."""
    content, name = spec.config_content, spec.config or ""
    text = (spec.config_file or {}).get("text", content if isinstance(content, str) else None)
    if content is not None and (not isinstance(content, str) or text is None):
        return content if is_shallow(content) else "(nested too deep to be shown)"
    if text is None:
        return None if spec.config_file is None else _summary(spec.config_file.get("base64", "").encode())
    if values := _values(text, name, _MOST_SHOWN):
        return values
    return _summary(text.encode("utf-8", "surrogatepass"))


def _values(text: str, name: str, most: int) -> Any:
    """Of one document with keys or items, not more than `most`; None for anything else."""
    try:
        documents = (yaml_documents if name.lower().endswith(YAML_SUFFIXES) else json_documents)(text, name)
        if len(documents) == 1 and documents[0].kind is not Kind.SCALAR:
            check_expanded(documents[0], name, most)
            return plain_value(documents[0])
    except SettingsError:
        pass
    return None


def _summary(data: bytes) -> str:
    return f"{len(data):,} bytes, hash {xxhash.xxh3_64_hexdigest(data)}"


def _decoded(data: bytes) -> tuple[str | None, str]:
    """The text with its byte-order mark, and its encoding; no text if that would not give the same bytes."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    assert encoding in CONFIG_ENCODINGS
    try:
        text = data.decode(encoding)
        return (text, encoding) if text.encode(encoding) == data else (None, "")
    except UnicodeError:
        return None, ""


def _check(text: str, name: str) -> None:
    """Raises SettingsError for what every reader of that format refuses."""
    try:
        if name.lower().endswith(JSON_SUFFIX):
            json_documents(text, name)
        elif name.lower().endswith(YAML_SUFFIXES):
            for document in yaml_documents(text, name):
                for node in document.walk():
                    _check_date(node, name)
    except BeyondBounds:
        pass
    except SettingsError:
        if not _TEMPLATE.search(text):
            raise


def _check_date(node: Node, name: str) -> None:
    if node.kind is Kind.SCALAR and not node.quote and not node.tag and is_date(node.text):
        reason = date_error(node.text)
        if reason:
            raise SettingsError(
                f"{name}:{node.line}:{node.column}: {node.text} is not a date: {reason}",
                hint="correct it, or put it in quotes to mean text",
            )


def _content(text: str, name: str) -> Any:
    """For lists, comparisons and Studio: the values of JSON and YAML, or the text where JSON has not all of them."""
    if not name.lower().endswith((*YAML_SUFFIXES, JSON_SUFFIX)):
        return text
    values = _values(text, name, MAX_EXPANDED if name.lower().endswith(JSON_SUFFIX) else _MOST_SHOWN)
    try:
        json.dumps(values, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:  # infinite, or not Unicode
        return text
    return values if values is not None and is_shallow(values) else text


_BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)[ \t]*$\n(?P<content>(?:^#(?:| .*)$\n)+?)^# ///[ \t]*$")
"""https://packaging.python.org/en/latest/specifications/inline-script-metadata/"""
_OPENING = re.compile(r"(?m)^# /// script[ \t]*$")
_KEYS = ("datasets", "produces", "compute")


def read_script_block(source: str, file: str) -> PartialSpec:
    """What the table [tool.amlctl] of a script's inline block (PEP 723) says of its runs, dataset names as written.
    `source` is the script's text; `file` names it in errors.

    Raises SettingsError naming file and line: not closed, twice, invalid TOML, unknown key, wrong type.
    """
    document = _block_of(source, file)
    if document is None:
        return PartialSpec(file, {})
    for key in (*_KEYS, "amlctl"):
        if key in document.value:
            hint = "write [tool.amlctl]" if key == "amlctl" else "move it below a line [tool.amlctl]"
            raise document.error(f"{key!r} has no effect outside of [tool.amlctl]", key, hint=hint)
    tool = document.value.get("tool", {})
    table = tool.get("amlctl", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise document.error("[tool.amlctl] must be a table", "tool", "amlctl")
    lines = {key: document.where("tool", "amlctl", key) for key in table}
    for key, value in table.items():
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS) or f"known keys: {', '.join(_KEYS)}"
            raise SettingsError(f"{lines[key]}: unknown key {key!r} in [tool.amlctl]", hint=hint)
        if key == "compute" and not (isinstance(value, str) and value):
            raise SettingsError(f"{lines[key]}: compute must be the name of a compute target", hint='compute = "gpu"')
        is_list = isinstance(value, list) and all(isinstance(name, str) and name for name in value)
        if key != "compute" and not is_list:
            hint = f'{key} = ["working/images"]'
            raise SettingsError(f"{lines[key]}: {key} must be a list of dataset names", hint=hint)
    return PartialSpec(file, table, lines)


def read_script_environment(source: str, file: str) -> EnvironmentSpec | None:
    """The `dependencies` and `requires-python` of the block; None without any. Raises SettingsError."""
    document = _block_of(source, file)
    if document is None or not document.value.keys() & {"dependencies", "requires-python"}:
        return None
    python, packages = document.value.get("requires-python", ""), document.value.get("dependencies", [])
    if not isinstance(python, str):
        raise document.error("requires-python must be a string", "requires-python", hint='">=3.11"')
    if not isinstance(packages, list) or not all(isinstance(one, str) for one in packages):
        raise document.error("dependencies must be a list of strings", "dependencies", hint='["numpy>=2"]')
    try:
        python_specifiers(python)
    except SettingsError as error:
        message, hint = f"requires-python {python!r} is not a valid version", 'requires-python = ">=3.11"'
        raise document.error(message, "requires-python", hint=hint) from error
    pip = PipList(None)
    for package in packages:
        pip.add(package, document.where("dependencies"))
    return EnvironmentSpec(
        python=python.replace(" ", ""),
        pip=tuple(pip.lines),
        source=file,
        places={**pip.places, "python": document.where("requires-python")},
        has_files=True,
    )


def _block_of(source: str, file: str) -> TextDocument | None:
    source = source.replace("\r\n", "\n")
    openings = [_line_of(source, match.start()) for match in _OPENING.finditer(source)]
    blocks = [match for match in _BLOCK.finditer(source) if match["type"] == "script"]
    if not openings:
        return None
    if not blocks:
        raise SettingsError(
            f"{file}:{openings[0]}: the inline block is not closed",
            hint="end it with a line '# ///'; every line between begins with '# '",
        )
    if len(blocks) > 1:
        raise SettingsError(f"{file}:{_line_of(source, blocks[1].start())}: a second inline block 'script'")
    content = "\n".join(line[2:] if line.startswith("# ") else line[1:] for line in blocks[0]["content"].splitlines())
    return parse_toml(content, file, first_line=_line_of(source, blocks[0].start()) + 1, first_column=3)


def _line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
