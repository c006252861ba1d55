"""The commands that the documents show: lines of their blocks, and code in their text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])

_BLOCK_LINE = re.compile(r"(?m)^    (amlctl .*(?:\\\n.*)*)$")
_IN_TEXT = re.compile(r"`(amlctl [^`\n]+)`")
_IS_NAME = re.compile(r"[a-z ]+")
_ENDS_COMMAND = ("&&", "||", "|", ";", ">")


def lines_of(document: Path) -> list[str]:
    """With `--help` where a text only names a command."""
    text = document.read_text(encoding="utf-8")
    in_text = [f"{code} --help" if _IS_NAME.fullmatch(code) else code for code in _IN_TEXT.findall(text)]
    return [*_BLOCK_LINE.findall(text), *in_text]


def commands_of(line: str) -> Iterator[list[str]]:
    """The words of each command of ours in the line, without the remark behind `#` and without `…`."""
    words: list[str] = []
    for word in [*shlex.split(line, comments=True), ";"]:
        if word not in _ENDS_COMMAND:
            words += [] if word == "…" else [word]
            continue
        if words[:1] == ["amlctl"]:
            yield words[1:]
        words = []


class Step(NamedTuple):
    """A command to run, or a file to write."""

    command: str = ""
    file: str = ""
    content: str = ""


_STEP = re.compile(r"(?ms)^`(?P<file>[^`\n]+)`:\n\n```\w*\n(?P<content>.*?)^```$|^    (?P<command>\S[^\n]*)$")


def steps_of(document: Path, begin: str, end: str) -> list[Step]:
    """What a reader types between two headings. A file is a block after a line with its name alone: `` `name`: ``."""
    text = document.read_text(encoding="utf-8").partition(f"{begin}\n")[2].partition(f"\n{end}\n")[0]
    return [Step(*(one[key] or "" for key in Step._fields)) for one in _STEP.finditer(text)]
