"""Writes docs/commands.md, settings.md, json.md and schemas/ from the code: `python docs/reference.py`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from amlctl.cli.app import root_command  # noqa: E402
from amlctl.cli.command_group import COMMANDS, load  # noqa: E402
from amlctl.config.settings import (  # noqa: E402
    KNOWN,
    as_written,
    settings_in_use,
)
from amlctl.core.settings import Settings  # noqa: E402
from docs import documents  # noqa: E402
from docs.documents import DOCUMENTS, Document  # noqa: E402
from docs.json_schema import schema_of  # noqa: E402

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
    rows = []
    for known in KNOWN:
        value = defaults.get(known.key.replace("NAME", "local"))
        shown = "" if value is None else f"`{as_written(value)}`"
        variable = known.variable and f"`{known.variable}`"
        rows.append(f"| `{known.key}` | {_cell(known.meaning)} | {shown} | {variable} |")
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


JSON = """\
With `--json` a command prints one document on stdout, and everything else, the log of a run too, on stderr. Each
document has a [JSON schema](https://json-schema.org/draft/2020-12). Newer versions may add fields, so readers should
ignore unknown ones. Commands that fail after they have something to show (`submit`, `doctor`, `runs wait`) print their
own document, and the exit code says that they failed. Times are ISO 8601 in UTC, sizes are in bytes."""

ERRORS = """\
`{"error": {"kind", "message", "hint", "next"}}`, with `details` where there are more lines. `kind` is stable;
`message` and `hint` are for people. `next` has the commands of the hint, with `--project`, `--workspace` and `--store`
as they were given: each can be run as it is, where no word in capitals (`PATH`, `RUN`) has to be replaced first."""

INTERNAL = "| `internal` | 70 | an error of amlctl itself; a report is written, and the message says where |"


def json_page() -> str:
    """The documents of all commands, and the kinds of errors."""
    rows = [
        f"| {', '.join(f'`{one}`' for one in document.commands) or 'any command that fails'} "
        f"| [{document.name}.json](schemas/{document.name}.json) |"
        for document in DOCUMENTS
    ]
    kinds = [f"| `{one.kind}` | {one.exit_code} | {meaning} |" for one, meaning in documents.kinds_explained()]
    return (
        "\n\n".join(
            [
                "# JSON documents",
                NOTE,
                JSON,
                "\n".join(["| command | schema |", "| --- | --- |", *rows]),
                "## Errors",
                ERRORS,
                "\n".join(["| kind | exit code | means |", "| --- | ---: | --- |", *kinds, INTERNAL]),
            ]
        )
        + "\n"
    )


def schema(document: Document) -> str:
    """One file of docs/schemas/."""
    names = {one: ref for one, ref in documents.NAMES.items() if not ref.startswith(f"{document.name}.json")}
    parts = [schema_of(one, names, documents.FIELDS) for one in document.kinds]
    title = ", ".join(f"amlctl {one}" for one in document.commands) or "An error of any command"
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    return json.dumps(head | (parts[0] if len(parts) == 1 else {"anyOf": parts}), indent=2, ensure_ascii=False) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


PAGES: dict[str, Callable[[], str]] = {
    "commands.md": commands_page,
    "settings.md": settings_page,
    "json.md": json_page,
    **{f"schemas/{one.name}.json": partial(schema, one) for one in DOCUMENTS},
}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (ROOT / "docs" / name).write_text(page(), encoding="utf-8")
