"""Packages by uv: ten times as fast as pip, and its cache is shared by all environments."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from amlctl.localfs.tool_variables import answer_of
from amlctl.workspaces.local.tools import ToolRunner

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)")
_NOISE = (" ", "Using ", "Resolved ", "Audited ", "Checked ", "Would ", "warning: Failed to hardlink", "hint: ")
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
        said = [_MARK.sub("", line).rstrip() for line in lines[start:]]
        said = [line for line in said if line]
        if not said:
            return "", []
        if said[0].startswith("No solution found") and len(said) > 1:
            reason = _CONCLUSION.sub("", said[1].removeprefix("Because "))
            return reason, [_CONCLUSION.sub("", line) for line in said[2:]]
        return ": ".join(said[:2]).rstrip(":"), said[2:]

    def naming(self, lines: Sequence[str]) -> list[str]:
        """The lines of a failure's output that name the packages it is about."""
        return list(lines)

    def _run(self, arguments: Sequence[str], folder: Path) -> None:
        runner = replace(self.runner, tell=self._tell)
        command = [self.program, "pip", *arguments, "--python", self.python, *self.options]
        runner.run("uv", command, variables=self.variables, cwd=folder)

    def _tell(self, line: str) -> None:
        if not line.startswith(_NOISE):
            self.runner.tell(line)
