"""Writes docs/commands.md and docs/settings.md from the code: `python docs/reference.py`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from amlctl.cli.app import root_command  # noqa: E402
from amlctl.cli.command_group import COMMANDS, load  # noqa: E402
from amlctl.config.settings import VARIABLES  # noqa: E402
from amlctl.config.settings_reference import MEANINGS, as_written, settings_in_use  # noqa: E402
from amlctl.core.settings import Settings  # noqa: E402

NOTE = "<!-- Written by docs/reference.py; change the help texts in the code instead. -->"

ORDER = """\
`amlctl config show` prints the value of each and where it comes from. The first of these that has one wins: the option,
the variable, `.amlctl.toml` of the project, the user's `config.toml`, the default. A variable of a workspace is for the
one in use. The defaults of workspaces are those of `local`."""


def commands_page() -> str:
    """Every command with its arguments and options."""
    parts = ["# Commands", NOTE, "Options of every command:", _table(root_command())]
    for name in COMMANDS:
        command = load(name)
        parts += list(_section(name, command))
        for inner_name, inner in sorted(getattr(command, "commands", {}).items()):
            parts += list(_section(f"{name} {inner_name}", inner))
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(name: str, command: Any) -> Iterator[str]:
    yield f"## amlctl {name}"
    yield command.help
    yield _table(command)
    examples = [line.strip() for line in (command.epilog or "").splitlines() if line.startswith("  amlctl")]
    yield "\n".join(f"    {line}" for line in examples)


def _table(command: Any) -> str:
    rows = []
    for param in command.params:
        if getattr(param, "hidden", False):
            continue
        names = (
            param.metavar if param.param_type_name == "argument" else ", ".join([*param.opts, *param.secondary_opts])
        )
        value = f" {param.metavar}" if param.param_type_name == "option" and param.metavar else ""
        rows.append(f"| `{_cell(names + value)}` | {_cell(param.help)} |")
    return "\n".join(["| argument or option | does |", "| --- | --- |", *rows]) if rows else ""


def settings_page() -> str:
    """Every setting and variable."""
    defaults = {one.key: one.value for one in settings_in_use(Settings())}
    variables = {one.key.replace("{workspace}", "NAME"): one.name for one in VARIABLES}
    rows = []
    for key, meaning in MEANINGS.items():
        value = defaults.get(key.replace("NAME", "local"))
        shown = "" if value is None else f"`{as_written(value)}`"
        variable = f"`{variables[key]}`" if key in variables else ""
        rows.append(f"| `{key}` | {_cell(meaning)} | {shown} | {variable} |")
    return (
        "\n\n".join(
            [
                "# Settings",
                NOTE,
                ORDER,
                "\n".join(["| setting | meaning | default | variable |", "| --- | --- | --- | --- |", *rows]),
                "`AMLCTL_PROJECT` names the project's folder, as `--project` does.",
            ]
        )
        + "\n"
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


PAGES = {"commands.md": commands_page, "settings.md": settings_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (ROOT / "docs" / name).write_text(page(), encoding="utf-8")
