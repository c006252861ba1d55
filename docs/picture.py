"""Draws docs/picture.svg from a real run: `python docs/picture.py`, in the project after ./demo.sh."""

from __future__ import annotations

import io
import os
import re
import subprocess
from pathlib import Path

from rich.console import Console
from rich.text import Text

COMMANDS = ("submit model_train.py --config baseline.json", "runs --limit 3")
WIDTH = 110


def screen(command: str) -> str:
    """What a terminal shows in the end: the prompt and the output, redrawn lines as they are last, no local paths."""
    variables = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(WIDTH)}
    done = subprocess.run(
        ["amlctl", *command.split()], env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True
    )
    output = done.stdout.decode().replace("\r\n", "\n")
    lines = [line.rpartition("\r")[2] for line in output.splitlines() if os.getcwd() not in line]
    return "\n".join([f"\x1b[1m$ amlctl {command}\x1b[0m", *lines, ""])


def main() -> None:
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi("\n".join(map(screen, COMMANDS))))
    svg = console.export_svg(title="amlctl")
    svg = re.sub(r"@font-face \{.*?\}|<!--.*?-->", "", svg, flags=re.DOTALL)  # the reader's own fonts; no network
    (Path(__file__).parent / "picture.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
