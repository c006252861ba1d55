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

import tomllib

from amlctl.core.run_sources import PartialSpec
from amlctl.core.wording import did_you_mean
from amlctl.errors import SettingsError

_BLOCK = re.compile(r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)[ \t]*$\n(?P<content>(?:^#(?:| .*)$\n)+?)^# ///[ \t]*$")
_OPENING = re.compile(r"(?m)^# /// script[ \t]*$")
_TOML_PLACE = re.compile(r"\s*\(at line (\d+), column (\d+)\)")
_KEYS = ("datasets", "produces", "compute")


def read_script_block(source: str, file: str) -> PartialSpec:
    """What `source` (a script's text) says of its runs, dataset names as written; `file` names it in errors.

    Raises SettingsError naming file and line: not closed, twice, invalid TOML, unknown key, wrong type.
    """
    source = source.replace("\r\n", "\n")
    openings = [_line_of(source, match.start()) for match in _OPENING.finditer(source)]
    blocks = [match for match in _BLOCK.finditer(source) if match["type"] == "script"]
    if not openings:
        return PartialSpec(file, {})
    if not blocks:
        raise SettingsError(
            f"{file}:{openings[0]}: the inline block is not closed",
            hint="end it with a line '# ///'; every line between begins with '# '",
        )
    if len(blocks) > 1:
        raise SettingsError(f"{file}:{_line_of(source, blocks[1].start())}: a second inline block 'script'")
    content = "\n".join(line[2:] if line.startswith("# ") else line[1:] for line in blocks[0]["content"].splitlines())
    return _read(content, file, _line_of(source, blocks[0].start()))


def _line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1


def _read(content: str, file: str, opening_line: int) -> PartialSpec:
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
        raise SettingsError(f"{file}:{opening_line}: [tool.amlctl] must be a table")

    def line_of(key: str) -> str:
        for number, line in enumerate(content.splitlines(), start=1):
            if re.match(rf"\s*[\"']?(?:tool\.amlctl\.)?{re.escape(key)}[\"']?\s*=", line):
                return f"{file}:{opening_line + number}"
        return f"{file}:{opening_line}"

    for key in table:
        if key not in _KEYS:
            hint = did_you_mean(key, _KEYS) or f"known keys: {', '.join(_KEYS)}"
            raise SettingsError(f"{line_of(key)}: unknown key {key!r} in [tool.amlctl]", hint=hint)

    for key, value in table.items():
        is_text = isinstance(value, str) and value
        is_list = isinstance(value, list) and all(isinstance(name, str) and name for name in value)
        if key == "compute" and not is_text:
            raise SettingsError(f"{line_of(key)}: compute must be the name of a compute target", hint='compute = "gpu"')
        if key != "compute" and not is_list:
            hint = f'{key} = ["working/images"]'
            raise SettingsError(f"{line_of(key)}: {key} must be a list of dataset names", hint=hint)
    return PartialSpec(file, table, {key: line_of(key) for key in table})
