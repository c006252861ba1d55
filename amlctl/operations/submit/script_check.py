"""Whether a script can be parsed by the Python that will run it, found out before there is a run."""

from __future__ import annotations

import ast
import sys
import warnings
from collections.abc import Sequence
from typing import Optional

from amlctl.core.events import EventSink, Warned
from amlctl.errors import CheckFailed

PythonVersion = tuple[int, int]


def check_syntax(source: bytes, shown: str, target: Optional[PythonVersion], sink: EventSink) -> None:
    """`target` is the run's Python, None where it is not known. Raises CheckFailed where it surely cannot parse this.

    A newer Python may take what this one refuses: then the error is a warning.
    """
    own: PythonVersion = sys.version_info[:2]
    try:
        _compile(source, shown, own)
        if target is not None and target < own:
            _compile(source, shown, target)
    except SyntaxError as error:
        message, details = _told(error, shown)
        if target is None or target > own:
            reader = f"Python {own[0]}.{own[1]}, the one of amlctl"
            sink(Warned("\n".join([f"{message} (says {reader}; the run may have a newer one)", *details])))
            return
        raise CheckFailed(message, hint="correct the script, then submit it again", details=details) from error
    except (ValueError, RecursionError, MemoryError) as error:
        if "null bytes" not in str(error):
            return  # too deep for us; perhaps not for a fresh process
        raise CheckFailed(
            f"{shown}: it is not Python source: it holds null bytes", hint="see what the file is"
        ) from error


def _compile(source: bytes, shown: str, version: PythonVersion) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if version == sys.version_info[:2]:
            compile(source, shown, "exec", dont_inherit=True)
        else:
            ast.parse(source, shown, feature_version=version)


def _told(error: SyntaxError, shown: str) -> tuple[str, Sequence[str]]:
    """As Python tells it: file and line, the line itself, and a caret below the place."""
    where = shown if error.lineno is None else f"{shown}:{error.lineno}"
    message = f"{where}: {type(error).__name__}: {error.msg}"
    if not error.text:
        return message, ()
    line = error.text.rstrip("\n")
    indent = len(line) - len(line.lstrip())
    column = max((error.offset or 1) - 1 - indent, 0)
    return message, (line.strip(), " " * column + "^")
