"""`azure.ai.ml`: imported fast, kept off the screen, and its check of job files with file and line.

The import takes more than a second of processor time, so only commands that create something in Azure ML or read a job
file do it.
"""

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
from threading import RLock, Thread
from typing import TYPE_CHECKING, Any

from amlctl.core.environment import DEFAULT_IMAGE
from amlctl.core.message import did_you_mean
from amlctl.errors import NotFound, SettingsError

if TYPE_CHECKING:
    from amlctl.config.text_file import Place, TextDocument

CLOUD_VARIABLE = "AZUREML_CURRENT_CLOUD"
_COLOR = re.compile(r"\x1b\[[0-9;]*m")


_using = RLock()


def begin_import() -> None:
    """Import it in the background, while the command waits for the network."""

    def act() -> None:
        with azure_ai_ml():
            pass

    Thread(target=act, name="import azure.ai.ml", daemon=True).start()


@contextmanager
def azure_ai_ml() -> Iterator[None]:
    """Import from `azure.ai.ml` inside, one thread at a time: without its warnings and log lines, such as those on
    experimental fields, and with the variable of its cloud restored at the end."""
    with _using, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cloud = os.environ.get(CLOUD_VARIABLE)
        try:
            _import()
            for name in ("azure", "azure.ai.ml"):  # the import sets a level and a handler of its own
                logging.getLogger(name).setLevel(logging.CRITICAL + 1)
            yield
        finally:
            os.environ.pop(CLOUD_VARIABLE, None)
            if cloud is not None:
                os.environ[CLOUD_VARIABLE] = cloud


def first_line(error: Exception) -> str:
    """Of a message of the SDK, which may be colored and a page long."""
    return _COLOR.sub("", str(error)).strip().partition("\n")[0]


def _import() -> None:
    """Without garbage collection, which finds nothing in modules: 0.85 s instead of 1.1, and 0.35 s less at exit."""
    if "azure.ai.ml" in sys.modules:
        return
    os.environ[CLOUD_VARIABLE] = "AzureCloud"  # else the import makes a request, where ARM_CLOUD_METADATA_URL is set
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
"""For suggestions; the SDK knows all keys."""
_HINTS = {
    "command": "command: python train.py",
    "code": "a folder or file, relative to the job file",
    "environment": "azureml:NAME:VERSION, azureml:NAME@latest, file:ENVIRONMENT.yml, or keys: image, conda_file, build",
}
_NOT_IN_SET = re.compile(r"Value (.*) passed is not in set \[(.*)\]", re.DOTALL)
_NOT_FOUND = ("Can't find", "No such file")
_UNHELPFUL = ("is not a data binding string", "data cannot be a string", "In order to specify an existing")


def check_job(file: TextDocument, path: Path) -> str:
    """The type of the job in `file`, which was read from `path`: `command`, `sweep` or `pipeline`, say.

    Raises SettingsError or NotFound, with the line that the SDK refuses.
    """
    document = dict(file.value)
    kind = str(document.get("type", "command")).lower()
    if kind == "command":
        document.setdefault("environment", {"image": DEFAULT_IMAGE})  # the default is the project's own
    with azure_ai_ml():
        from azure.ai.ml import load_job
        from azure.ai.ml.exceptions import MlException
        from marshmallow import ValidationError

        try:
            job = load_job(io.StringIO(json.dumps(document, default=str)), relative_origin=str(path))
        except (ValidationError, MlException) as error:
            what, keys = ("a job", _COMMAND_KEYS) if kind == "command" else (f"a job of type {kind}", ())
            raise refused(file, str(error), what=what, keys=keys) from error
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:  # not handled by its schemas
            raise file.error(f"the SDK cannot read this job: {error}") from error
    return str(job.type)


def refused(
    file: TextDocument, text: str, *, what: str = "a job", keys: Sequence[str] = _COMMAND_KEYS
) -> SettingsError | NotFound:
    """The SDK's error about a file in one line, with the line of the file. `keys` are those of the outermost level."""
    yaml_path, messages = _simplest(file, (), _innermost(text))
    key = str(yaml_path[-1]) if yaml_path else ""
    if messages[0] == "Unknown field.":
        known = keys if len(yaml_path) == 1 else ()
        message, hint = (
            f"{key!r} is not a key of {'.'.join(map(str, yaml_path[:-1])) or what}",
            did_you_mean(key, known),
        )
    elif sets := [match for match in map(_NOT_IN_SET.fullmatch, messages) if match]:
        allowed = dict.fromkeys(one.strip(" '") for match in sets for one in match[2].split(","))
        message, hint = f"{key}: {sets[0][1]} is not valid", f"one of {', '.join(allowed)}"
    elif messages[0] == "Missing data for required field.":
        message, hint = f"{key} is missing", ""
    else:
        found = next((one for one in messages if not any(part in one for part in _UNHELPFUL)), "")
        message = found or (f"{file.value_at(*yaml_path)!r} is not valid" if yaml_path in file.lines else "not valid")
        message, hint = (f"{key}: {message}" if key else message).strip().rstrip("."), ""
    hint = hint or next((_HINTS[str(part)] for part in yaml_path if part in _HINTS), "")
    if any(part in message for part in _NOT_FOUND):
        value = file.value_at(*yaml_path)
        shown = f"{key}: {value} not found" if isinstance(value, str) else message
        return NotFound(f"{file.where(*yaml_path)}: {shown}", hint=hint)
    return file.error(message, *yaml_path, hint=hint)


def _innermost(text: str) -> Any:
    """Errors by key: the SDK's message is text around JSON, whose messages are text around JSON."""
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


def _simplest(file: TextDocument, yaml_path: Place, errors: Any) -> tuple[Place, list[str]]:
    """The first error, and of alternatives that a value may be, those with the fewest errors.

    Keys that are not in the file, such as the `value` of a mapping's entry, come from the SDK.
    """
    if isinstance(errors, dict):
        # A misspelled key says more than the one that is missing without it.
        key, below = min(errors.items(), key=lambda item: item[1] != ["Unknown field."])
        is_ours = (*yaml_path, key) in file.lines or below == ["Missing data for required field."]
        return _simplest(file, (*yaml_path, key) if is_ours else yaml_path, below)
    if not isinstance(errors, list):
        return yaml_path, [str(errors)]
    fewest = min((_count(one) for one in errors), default=0)
    found = [_simplest(file, yaml_path, one) for one in errors if _count(one) == fewest]
    deepest = max((one[0] for one in found), key=len, default=yaml_path)
    return deepest, [message for at, messages in found for message in messages if at == deepest] or ["invalid value"]


def _count(errors: Any) -> int:
    if isinstance(errors, dict):
        return sum(map(_count, errors.values()))
    return min(map(_count, errors), default=1) if isinstance(errors, list) else 1
