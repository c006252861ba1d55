"""What a project of the first amlctl has that no longer works, and what to write instead."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_SDK = "remove it, runs do not need it; for metrics use azureml-mlflow and mlflow"
_RUN = 'mlflow.log_metric("loss", loss), or outputs/metrics.json; datasets come from file_paths.py'
_ENVIRONMENT = [
    (re.compile(r"azureml-(?:sdk|core|defaults|train[\w-]*|pipeline[\w-]*|dataprep[\w-]*|dataset-runtime)\b"), _SDK),
    (re.compile(r"python\s*[=<~]=?=?\s*(?:2(?:\.\d+)*|3\.[0-8](?!\d)(?:\.\d+)?)"), "python>=3.11"),
]
_SCRIPT = [(re.compile(r"(?:from|import) azureml\.(?:core|train|pipeline|data\w*)\b"), _RUN)]
_MAX_BYTES = 1 << 20


class Outdated(NamedTuple):
    """`found` stands in that line of `file`, a path below the project's folder."""

    file: str
    line: int
    found: str
    instead: str

    def to_json(self) -> dict[str, Any]:
        return self._asdict()


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
    try:
        return path.read_text(encoding="utf-8").splitlines() if path.stat().st_size <= _MAX_BYTES else []
    except (OSError, ValueError):
        return []
