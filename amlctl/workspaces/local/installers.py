"""The two programs that install packages: uv, ten times as fast as pip and with a cache that all environments share;
and pip, where uv is missing or cannot do what a list asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amlctl.localfs.tool_variables import answer_of
from amlctl.workspaces.local.tools import ToolFailed, ToolRunner

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)")
_UV_NOISE = (" ", "Using ", "Resolved ", "Audited ", "Checked ", "Would ", "warning: Failed to hardlink", "hint: ")
"""Lines that are not logged. Downloads, builds, the number of installed packages and errors are."""
_MARK = re.compile(r"^\s*(?:[×│├╰─▶]+|error:|cause:|Caused by:)?\s*")
"""Before each line of an error: it differs between versions of uv."""
_CONCLUSION = re.compile(r",? (?:we can|it can be) conclude(?:d)? that .*$", re.DOTALL)
_LIMIT_S = 60.0
_OPTIONS = {"--pre": ["--prerelease", "allow"], "--require-hashes": ["--require-hashes"]}
"""Lines of a requirements file that uv takes as options only."""


def unsupported(lines: Sequence[str]) -> str:
    """What in the lists for pip uv cannot do; empty if it can do all of it."""
    for line in lines:
        word = line.partition(" ")[0]
        if word in ("--prefer-binary", "--use-feature"):
            return word
        found = re.search(r"\s(--global-option|--config-settings?)\b", line)
        if found:
            return found[1]
        if scheme := re.search(r"\b(hg|svn|bzr)\+", line):
            return f"{scheme[1]}+…"
    return ""


@dataclass(frozen=True)
class Uv:
    """`program` installs into the environment of `python`, or resolves for it. See `packages.Installer`."""

    program: str
    python: str
    variables: Mapping[str, str]
    options: Sequence[str]
    runner: ToolRunner

    name = "uv"

    def split(self, lines: Sequence[str]) -> tuple[list[str], list[str]]:
        """The lines for a requirements file, and options instead of the others."""
        kept: list[str] = []
        options: list[str] = []
        for line in lines:
            if line in _OPTIONS:
                options += _OPTIONS[line]
            elif line.startswith("--trusted-host "):
                options += ["--allow-insecure-host", line.partition(" ")[2]]
            else:
                kept.append(line)
        return kept, options

    def install(self, options: Sequence[str], folder: Path, *, no_deps: bool) -> dict[str, str]:
        """Names and versions of what is installed then."""
        self._run(["install", *(["--no-deps"] if no_deps else []), *options], folder)
        command = [self.program, "pip", "list", "--format", "json", "--python", self.python]
        done = answer_of(command, _LIMIT_S, variables=self.variables, folder=folder)
        try:
            found = {str(one["name"]): str(one["version"]) for one in json.loads(done.stdout)}
        except (ValueError, LookupError, TypeError):
            return {}  # the environment itself is asked for its packages, without their versions
        found.pop("pip", None)  # every environment has it, and nothing depends on its version
        return found

    def resolve(self, options: Sequence[str], folder: Path) -> list[str]:
        """`name==version` of what would be installed from an index."""
        output = folder / "resolved.txt"
        # Positional, unlike for `install`.
        wanted = [word for word in options if word != "--requirement"]
        self._run(["compile", *wanted, "--no-header", "--no-annotate", "--quiet", "--output-file", str(output)], folder)
        lines = output.read_text(encoding="utf-8").splitlines()
        return [match[0] for match in map(_PIN.match, lines) if match is not None]

    def explain(self, lines: Sequence[str]) -> tuple[str, list[str]]:
        """The reason in the output of a failure, and what else explains it. Of uv's chain of causes the first that says
        more than that it failed."""
        start = next((at for at, line in enumerate(lines) if line.lstrip().startswith(("error:", "×"))), 0)
        report = [text for line in lines[start:] if (text := _MARK.sub("", line).rstrip())]
        if not report:
            return "", []
        if report[0].startswith("No solution found") and len(report) > 1:
            reason = _CONCLUSION.sub("", report[1].removeprefix("Because "))
            return reason, [_CONCLUSION.sub("", line) for line in report[2:]]
        return ": ".join(report[:2]).rstrip(":"), report[2:]

    def naming(self, lines: Sequence[str]) -> list[str]:
        """The lines of a failure's output that name the packages it is about."""
        return list(lines)

    def _run(self, arguments: Sequence[str], folder: Path) -> None:
        runner = replace(self.runner, tell=self._tell)
        command = [self.program, "pip", *arguments, "--python", self.python, *self.options]
        runner.run("uv", command, variables=self.variables, cwd=folder)

    def _tell(self, line: str) -> None:
        if not line.startswith(_UV_NOISE):
            self.runner.tell(line)


_OUR_LINE = re.compile(r"-r (/.*?/requirements[-0-9]*\.txt) \(line (\d+)\)")
_FROM_OUR_LINE = re.compile(rf" \(from {_OUR_LINE.pattern}\)")
_NO_OPTION = "no such option: --"
_PIP_NOISE = (
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
        repeated = (reason or "\0", "No matching distribution", "ResolutionImpossible")
        explaining = [line for line in lines if _EXPLAINS.match(line)]
        return reason, [line for line in explaining if not line.strip().removeprefix("ERROR: ").startswith(repeated)]

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
        if not line.startswith(_PIP_NOISE):
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
