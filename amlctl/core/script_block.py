"""What a script says of itself in its inline block (PEP 723), table `[tool.amlctl]`.

    # /// script
    # [tool.amlctl]
    # datasets = ["working/images"]
    # produces = []
    # compute = "gpu"
    # ///

Source of the grammar: https://packaging.python.org/en/latest/specifications/inline-script-metadata/
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Optional

import tomllib

from amlctl.core.wording import did_you_mean
from amlctl.errors import SettingsError

_BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)[ \t]*$\n(?P<content>(?:^#(?:| .*)$\n)+?)^# ///[ \t]*$")
_OPENING = re.compile(r"(?m)^# /// script[ \t]*$")
_TOML_PLACE = re.compile(r"\s*\(at line (\d+), column (\d+)\)")
_KEYS = ("datasets", "produces", "compute")


@dataclass(frozen=True)
class ScriptNeeds:
    """The inline block's wishes; dataset names as written, None where the block is silent."""

    datasets: Optional[tuple[str, ...]] = None
    produces: Optional[tuple[str, ...]] = None
    compute: Optional[str] = None


def read_script_block(source: str, file: str) -> ScriptNeeds:
    """The needs that `source` (a script's text) states; `file` names it in errors.

    Raises SettingsError naming file and line: not closed, twice, no TOML, unknown key, wrong type.
    """
    source = source.replace("\r\n", "\n")
    openings = [_line_of(source, match.start()) for match in _OPENING.finditer(source)]
    blocks = [match for match in _BLOCK.finditer(source) if match["type"] == "script"]
    if not openings:
        return ScriptNeeds()
    if not blocks:
        raise SettingsError(
            f"{file}:{openings[0]}: the inline block is not closed",
            hint="end it with a line '# ///'; every line between begins with '# '",
        )
    if len(blocks) > 1:
        raise SettingsError(f"{file}:{_line_of(source, blocks[1].start())}: a second inline block 'script'")
    content = "\n".join(line[2:] if line.startswith("# ") else line[1:] for line in blocks[0]["content"].splitlines())
    return _needs(content, file, _line_of(source, blocks[0].start()))


def _line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _needs(content: str, file: str, opening_line: int) -> ScriptNeeds:
    try:
        document = tomllib.loads(content)
    except RecursionError as error:
        raise SettingsError(f"{file}:{opening_line}: invalid TOML: nested too deep", hint="write it flatter") from error
    except ValueError as error:  # a TOMLDecodeError, or that of a number of 5,000 digits
        text, place = str(error), _TOML_PLACE.search(str(error))
        line = opening_line + (int(place[1]) if place else content.count("\n") + 1)
        column = f":{int(place[2]) + 2}" if place else ""
        raise SettingsError(f"{file}:{line}{column}: {_TOML_PLACE.sub('', text)}") from error
    table = document.get("tool", {}).get("amlctl", {}) if isinstance(document.get("tool", {}), dict) else {}
    if not isinstance(table, dict):
        raise SettingsError(f"{file}:{opening_line}: tool.amlctl must be a table")

    def place_of(key: str) -> str:
        for number, line in enumerate(content.splitlines(), start=1):
            if re.match(rf"\s*[\"']?(?:tool\.amlctl\.)?{re.escape(key)}[\"']?\s*=", line):
                return f"{file}:{opening_line + number}"
        return f"{file}:{opening_line}"

    for key in table:
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS) or f"known keys: {', '.join(_KEYS)}"
            raise SettingsError(f"{place_of(key)}: unknown key {key!r} in [tool.amlctl]", hint=hint)

    def names(key: str) -> Optional[tuple[str, ...]]:
        value: Any = table.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
            raise SettingsError(
                f"{place_of(key)}: {key} is a list of dataset names", hint=f'{key} = ["working/images"]'
            )
        return tuple(value)

    compute = table.get("compute")
    if compute is not None and (not isinstance(compute, str) or not compute):
        raise SettingsError(f"{place_of('compute')}: compute is the name of a compute target", hint='compute = "gpu"')
    return ScriptNeeds(names("datasets"), names("produces"), compute)
