"""`azure.ai.ml`, loaded fast and kept off the screen, for those who then import from it."""

from __future__ import annotations

import gc
import io
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from amlctl.core.environment import DEFAULT_IMAGE
from amlctl.core.wording import did_you_mean
from amlctl.errors import NotFound, SettingsError

if TYPE_CHECKING:  # commands that read neither jobs nor YAML import this module, too
    from amlctl.config.yaml_file import Place, YamlDocument

_COLOR = re.compile(r"\x1b\[[0-9;]*m")
CLOUD_VARIABLE = "AZUREML_CURRENT_CLOUD"


def begin_import() -> Thread:
    """It takes most of a second of processor time, which a command can use to wait for the network."""
    thread = Thread(target=_import_quietly, name="import azure.ai.ml", daemon=True)
    thread.start()
    return thread


@contextmanager
def azure_ai_ml() -> Iterator[None]:
    """Without its warnings and log lines, such as its notes on experimental fields.

    It writes its current cloud into a variable of the process, which is put back.
    """
    before = os.environ.get(CLOUD_VARIABLE)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _import()
            for name in ("azure", "azure.ai.ml"):  # the import sets a level and a handler of its own
                logging.getLogger(name).setLevel(logging.CRITICAL + 1)
            yield
    finally:
        os.environ.pop(CLOUD_VARIABLE, None)
        if before is not None:
            os.environ[CLOUD_VARIABLE] = before


def first_line(error: Exception) -> str:
    """Of a message of the SDK, which may be colored and go on for a page."""
    return _COLOR.sub("", str(error)).strip().partition("\n")[0]


def _import_quietly() -> None:
    with azure_ai_ml():
        pass


def _import() -> None:
    """Without garbage collection, which finds nothing in what stays: 0.85 s instead of 1.1, and at the end of the
    process 0.35 s less.
    """
    if "azure.ai.ml" in sys.modules:
        return
    gc.disable()
    try:
        import azure.ai.ml  # noqa: F401

        gc.freeze()
    finally:
        gc.enable()


_COMMAND_KEYS = (
    *("$schema", "type", "command", "code", "environment", "environment_variables", "inputs", "outputs", "compute"),
    *("distribution", "resources", "limits", "display_name", "experiment_name", "description", "tags", "services"),
    *("identity", "queue_settings", "name", "properties"),
)
"""Only for suggestions: what is known is the SDK's business."""
_HINTS = {
    "command": "command: python train.py",
    "code": "a folder or file, relative to the job file",
    "environment": "azureml:NAME:VERSION, azureml:NAME@latest, file:ENVIRONMENT.yml, or keys: image, conda_file, build",
}
_NOT_IN_SET = re.compile(r"Value (.*) passed is not in set \[(.*)\]", re.DOTALL)
_NOT_FOUND = ("Can't find", "No such file")
_UNHELPFUL = ("is not a data binding string", "data cannot be a string", "In order to specify an existing")


def check_job(file: YamlDocument, path: Path) -> str:
    """The type of the job that `file`, which lies at `path`, describes: `command`, `sweep`, `pipeline`, say.

    Raises SettingsError or NotFound, with the line of what the SDK refuses.
    """
    document = dict(file.value)
    if str(document.get("type", "command")).lower() == "command":
        document.setdefault("environment", {"image": DEFAULT_IMAGE})  # without one it is the project's own
    with azure_ai_ml():
        from azure.ai.ml import load_job
        from azure.ai.ml.exceptions import MlException
        from marshmallow import ValidationError

        try:
            job = load_job(io.StringIO(json.dumps(document, default=str)), relative_origin=str(path))
        except (ValidationError, MlException) as error:
            raise refused(file, str(error)) from error
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:  # what its schemas do not foresee
            raise file.error(f"the SDK cannot read this job: {error}") from error
    return str(job.type)


def refused(
    file: YamlDocument, text: str, *, what: str = "a job", keys: Sequence[str] = _COMMAND_KEYS
) -> SettingsError | NotFound:
    """What the SDK says of a file, in one line, with the line of the file. `keys` are those of the outermost level."""
    place, messages = _simplest(file, (), _innermost(text))
    key = str(place[-1]) if place else ""
    if messages[0] == "Unknown field.":
        known = keys if len(place) == 1 else ()
        told, hint = f"{key!r} is not a key of {'.'.join(map(str, place[:-1])) or what}", did_you_mean(key, known)
    elif sets := [match for match in map(_NOT_IN_SET.fullmatch, messages) if match]:
        allowed = dict.fromkeys(one.strip(" '") for match in sets for one in match[2].split(","))
        told, hint = f"{key}: {sets[0][1]} is not valid", f"one of {', '.join(allowed)}"
    elif messages[0] == "Missing data for required field.":
        told, hint = f"{key} is missing", ""
    else:
        found = next((one for one in messages if not any(part in one for part in _UNHELPFUL)), "")
        told = found or (f"{file.value_at(*place)!r} is not valid" if place in file.lines else "not valid")
        told, hint = (f"{key}: {told}" if key else told).strip().rstrip("."), ""
    hint = hint or next((_HINTS[str(part)] for part in place if part in _HINTS), "")
    if any(part in told for part in _NOT_FOUND):
        value = file.value_at(*place)
        shown = f"{key}: {value} not found" if isinstance(value, str) else told
        return NotFound(f"{file.where(*place)}: {shown}", hint=hint)
    return file.error(told, *place, hint=hint)


def _innermost(text: str) -> Any:
    """What went wrong, by key: the SDK's message is text around JSON, whose messages are text around JSON."""
    start = text.find("{")
    if start < 0:
        return [text.strip()]
    try:
        found = json.JSONDecoder().raw_decode(text[start:])[0]
    except ValueError:
        return [text.strip()]
    if found.keys() >= {"result", "errors"}:
        first = found["errors"][0]
        inner = _innermost(str(first["message"]))
        for key in reversed([] if first["path"] in (None, "*") else str(first["path"]).split(".")):
            inner = {key: inner}
        return inner
    return found


def _simplest(file: YamlDocument, place: Place, errors: Any) -> tuple[Place, list[str]]:
    """The first error, and of alternatives that a value may be, those with the fewest errors.

    Keys that are not in the file, such as the `value` of a mapping's entry, are the SDK's own.
    """
    if isinstance(errors, dict):
        key, below = next(iter(errors.items()))
        is_ours = (*place, key) in file.lines or below == ["Missing data for required field."]
        return _simplest(file, (*place, key) if is_ours else place, below)
    if not isinstance(errors, list):
        return place, [str(errors)]
    fewest = min((_count(one) for one in errors), default=0)
    found = [_simplest(file, place, one) for one in errors if _count(one) == fewest]
    deepest = max((one[0] for one in found), key=len, default=place)
    return deepest, [message for at, messages in found for message in messages if at == deepest] or ["invalid value"]


def _count(errors: Any) -> int:
    if isinstance(errors, dict):
        return sum(map(_count, errors.values()))
    return min(map(_count, errors), default=1) if isinstance(errors, list) else 1
