"""An error as a person reads it: what happened, the particulars, what to type now."""

from __future__ import annotations

from collections.abc import Callable

from amlctl.cli.render.style import Style
from amlctl.cli.render.tables import printable
from amlctl.errors import AmlctlError

MAX_DETAILS = 12
"""Lines of details that are shown; `-v` and `--json` show all."""


def error_lines(error: AmlctlError, style: Style, in_words: Callable[[str], str], *, is_verbose: bool) -> list[str]:
    """`error: …`, indented details, `hint: …`; `in_words` makes the commands in them ready to be typed."""
    first, *more = in_words(error.message).splitlines() or [""]
    lines = [f"{style.bad('error:')} {printable(first)}"]
    lines += [f"  {printable(line)}" for line in more]
    shown = error.details if is_verbose else error.details[:MAX_DETAILS]
    lines += [f"  {printable(in_words(detail))}" for detail in shown]
    if len(shown) < len(error.details):
        lines.append(style.dim(f"  … and {len(error.details) - len(shown):,} more (-v shows all)"))
    if error.hint:
        first, *more = in_words(error.hint).splitlines()
        lines += [f"{style.bold('hint:')} {printable(first)}", *(f"      {printable(line)}" for line in more)]
    return lines
