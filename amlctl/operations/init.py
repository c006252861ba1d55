"""`init`: make a folder a project. What is there already is never overwritten; what is from the first amlctl and no
longer works is named."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from amlctl.errors import RightsError, UsageError
from amlctl.localfs.atomic import move_if_new, remove_left_behind, temporary_beside
from amlctl.localfs.disk_errors import disk_error
from amlctl.localfs.project import SETTINGS_FILE
from amlctl.localfs.regular_file import read_regular

_FOLDERS = ("pipeline", "data_blobs/raw", "data_blobs/working", "outputs", "compute")
_MOST_BYTES = 1 << 20
_TEMPLATES = {
    ".amlctl.toml": "amlctl.toml",
    "pipeline/file_paths.py": "file_paths.py",
    "pptdaml.yaml": "pptdaml.yaml",
    "compute/local.yaml": "local.yaml",
    ".gitignore": "gitignore",
}
"""File of the project, and the file of `templates/` that it begins as."""


@dataclass(frozen=True)
class InitResult:
    """Paths relative to the folder; folders end with `/`. `unignored` are lines that a `.gitignore` of old lacks."""

    created: list[str]
    kept: list[str]
    unignored: list[str] = field(default_factory=list)
    outdated: list[Outdated] = field(default_factory=list)
    packages_from: str = ""
    """The file whose packages a new `pptdaml.yaml` has."""

    def to_json(self) -> dict[str, Any]:
        outdated = {"outdated": [one._asdict() for one in self.outdated]} if self.outdated else {}
        return {"created": self.created, "kept": self.kept, **outdated}


def init(folder: Path) -> InitResult:
    """Raises UsageError (a file stands where a folder is needed, or a folder where a file is), RightsError, and
    ServiceUnavailable (disk full)."""
    _check_not_nested(folder)
    templates = files("amlctl.operations") / "templates"
    path = folder / "pptdaml.yaml"
    try:
        starter = (templates / path.name).read_bytes()
        packages_from, environment = ("", starter) if os.path.lexists(path) else _packages(folder, starter)
        result = InitResult([], [], packages_from=packages_from)
        for name in _FOLDERS:
            path = folder / name
            is_new = not path.is_dir()
            path.mkdir(parents=True, exist_ok=True)
            (result.created if is_new else result.kept).append(f"{name}/")
        for name, template in _TEMPLATES.items():
            path = folder / name
            content = (templates / template).read_bytes()
            is_new = _write_new(path, environment if name == "pptdaml.yaml" else content)
            (result.created if is_new else result.kept).append(name)
        if ".gitignore" in result.kept:
            result.unignored.extend(_unignored(folder / ".gitignore", (templates / "gitignore").read_text()))
    except (FileExistsError, NotADirectoryError) as error:
        in_the_way = next(place for place in (path, *path.parents) if os.path.lexists(place))
        message = f"{in_the_way} is a file, and init needs a folder there"
        raise UsageError(message, hint="choose another folder, or move the file away") from error
    except OSError as error:
        hint = f"check who may write in {folder}"
        problem = disk_error(error, str(path), rights_hint=hint)
        raise problem or RightsError(f"cannot make {path}: {error.strerror}", hint=hint) from error
    result.outdated.extend(find_outdated(folder))
    return result


def _packages(folder: Path, starter: bytes) -> tuple[str, bytes]:
    """What `pptdaml.yaml` begins as: the project's own conda file, or the starter with the project's list of pip."""
    for name in ("environment.yml", "environment.yaml"):
        if (folder / name).is_file():
            return name, read_regular(folder / name, _MOST_BYTES)
    if (folder / "requirements.txt").is_file():
        return "requirements.txt", starter + b"  - pip:\n      - -r requirements.txt\n"
    return "", starter


def _check_not_nested(folder: Path) -> None:
    """Raises UsageError: commands typed below would find the inner project, and those above the outer one."""
    full = Path(os.path.abspath(folder))
    if (full / SETTINGS_FILE).exists():
        return
    outer = next((above for above in full.parents if (above / SETTINGS_FILE).is_file()), None)
    if outer is not None:
        raise UsageError(
            f"{full} lies inside the project {outer}",
            hint=f"amlctl already works here; to make another project, choose a folder outside of {outer}",
        )


def _write_new(path: Path, content: bytes) -> bool:
    """False, and nothing done, where something of that name is there. The file is whole from its first moment."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder, and init needs a file there", hint="move it away")
    remove_left_behind(path.parent)
    if os.path.lexists(path):
        return False
    temporary = temporary_beside(path)
    try:
        temporary.write_bytes(content)
        return move_if_new(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _unignored(file: Path, wanted: str) -> list[str]:
    """Folders that no line of `file` speaks of; one that does (`data_blobs/raw/*`) is the user's own decision."""
    try:
        text = read_regular(file, _MOST_BYTES).decode(errors="replace")
    except OSError:  # Git does not read it either
        text = ""
    present = [line.strip().lstrip("/") for line in text.splitlines()]
    folders = [line for line in wanted.splitlines() if not line.startswith("#")]
    return [folder for folder in folders if not any(line.startswith(folder.strip("/")) for line in present)]


_SDK = "remove it, runs do not need it; for metrics use azureml-mlflow and mlflow"
_RUN = 'mlflow.log_metric("loss", loss), or outputs/metrics.json; datasets come from file_paths.py'
_ENVIRONMENT = [
    (re.compile(r"azureml-(?:sdk|core|defaults|train[\w-]*|pipeline[\w-]*|dataprep[\w-]*|dataset-runtime)\b"), _SDK),
    (re.compile(r"python\s*[=<~]=?=?\s*(?:2(?:\.\d+)*|3\.[0-8](?!\d)(?:\.\d+)?)"), "python>=3.11"),
]
_SCRIPT = [(re.compile(r"(?:from|import) azureml\.(?:core|train|pipeline|data\w*)\b"), _RUN)]


class Outdated(NamedTuple):
    """`found` stands in that line of `file`, a path below the project's folder."""

    file: str
    line: int
    found: str
    instead: str


def find_outdated(folder: Path) -> list[Outdated]:
    """In pptdaml.yaml and in the scripts, in order. What cannot be read is passed over."""
    scripts = [(path, _SCRIPT) for path in sorted((folder / "pipeline").rglob("*.py"))]
    return [
        Outdated(path.relative_to(folder).as_posix(), number, found, instead)
        for path, rules in [(folder / "pptdaml.yaml", _ENVIRONMENT), *scripts]
        for number, line in enumerate(_lines(path), 1)
        for found, instead in _matches(line, rules)
    ]


def _matches(line: str, rules: list[tuple[re.Pattern[str], str]]) -> Iterator[tuple[str, str]]:
    code = line.partition("#")[0]
    for pattern, instead in rules:
        match = pattern.search(code)
        if match is not None:
            yield match[0], instead


def _lines(path: Path) -> list[str]:
    with suppress(OSError, ValueError):
        return read_regular(path, _MOST_BYTES).decode().splitlines()
    return []
