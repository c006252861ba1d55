"""Packages by pip: where uv is missing, or cannot do what a list asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amlctl.workspaces.local.tools import ToolFailed, ToolRunner

_OUR_LINE = re.compile(r"-r (/.*?/requirements[-0-9]*\.txt) \(line (\d+)\)")
_FROM_OUR_LINE = re.compile(rf" \(from {_OUR_LINE.pattern}\)")
_NO_OPTION = "no such option: --"
_NOISE = (
    "Collecting ",
    "  ",
    "Requirement already satisfied",
    "Looking in ",
    "Processing ",
    "Obtaining ",
    "Using cached ",
)
"""Lines that are not logged. Downloads, builds, installed packages and errors are."""
_EXPLAINS = re.compile(r"ERROR: |\s+\S.* (?:depends on|requested|requires) |.*error: |.*Requires-Python")


@dataclass(frozen=True)
class Pip:
    """`command` starts pip (`python -m pip`) with `variables`. See `packages.Installer`."""

    command: Sequence[str]
    variables: Mapping[str, str]
    runner: ToolRunner

    name = "pip"

    def split(self, lines: Sequence[str]) -> tuple[list[str], list[str]]:
        return list(lines), []

    def install(self, options: Sequence[str], folder: Path, *, no_deps: bool) -> dict[str, str]:
        """Without versions from a pip before 22.2."""
        report = folder / "installed.json"
        self._run(["install", *(["--no-deps"] if no_deps else []), *options], report, folder)
        return {str(one["name"]): str(one["version"]) for _, one in _chosen(report)}

    def resolve(self, options: Sequence[str], folder: Path) -> list[str]:
        """Empty where pip is older than 22.2."""
        report = folder / "resolved.json"
        self._run(["install", *options, "--dry-run", "--ignore-installed"], report, folder)
        return [f"{one['name']}=={one['version']}" for is_direct, one in _chosen(report) if not is_direct]

    def explain(self, lines: Sequence[str]) -> tuple[str, list[str]]:
        errors = [line.strip().removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
        unsaid = ("No matching distribution", "ResolutionImp")
        reason = next((line for line in errors if not line.startswith(unsaid)), "") or (errors[-1] if errors else "")
        said = (reason or "\0", "No matching distribution", "ResolutionImpossible")
        explaining = [line for line in lines if _EXPLAINS.match(line)]
        return reason, [line for line in explaining if not line.strip().removeprefix("ERROR: ").startswith(said)]

    def naming(self, lines: Sequence[str]) -> list[str]:
        return [line for line in lines if _EXPLAINS.match(line)]

    def _run(self, arguments: Sequence[str], report: Path, folder: Path) -> None:
        command = [*self.command, *arguments, "--disable-pip-version-check", "--no-input"]
        runner = replace(self.runner, tell=self._tell)
        try:
            try:
                runner.run("pip", [*command, "--report", str(report)], variables=self.variables, cwd=folder)
            except ToolFailed as failed:
                if not any(_NO_OPTION in line for line in failed.last_lines):
                    raise
                if "--dry-run" not in arguments:
                    runner.run("pip", command, variables=self.variables, cwd=folder)
        except ToolFailed as failed:
            readable = [_with_requirement(line) for line in failed.last_lines]
            raise ToolFailed(failed.exit_code, readable) from failed

    def _tell(self, line: str) -> None:
        if not line.startswith(_NOISE):
            self.runner.tell(_with_requirement(line))


def _with_requirement(line: str) -> str:
    """A line of pip's output, with the requirement itself instead of its line in our file."""

    def requirement(match: re.Match[str]) -> str:
        try:
            return Path(match[1]).read_text(encoding="utf-8").splitlines()[int(match[2]) - 1]
        except (OSError, IndexError):
            return match[0]

    return _OUR_LINE.sub(requirement, _FROM_OUR_LINE.sub("", line))


def _chosen(report: Path) -> list[tuple[bool, Mapping[str, Any]]]:
    """What pip installs (https://pip.pypa.io/en/stable/reference/installation-report/): whether each package
    comes from an address of its own, and its name and version."""
    try:
        chosen = json.loads(report.read_bytes())["install"]
        return [
            (bool(one["is_direct"]), {name: one["metadata"][name] for name in ("name", "version")}) for one in chosen
        ]
    except (OSError, ValueError, LookupError, TypeError):
        return []
