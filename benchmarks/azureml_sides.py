"""The two ways to work with Azure ML that are compared: the same tasks as commands, in a project of their own each."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from measure import Command
from sandbox import Sandbox, amlctl

_SETTINGS = """\
default_workspace = "cloud"

[workspaces.cloud]
compute = "azureml"
subscription_id = "{SUBSCRIPTION_ID}"
resource_group = "{RESOURCE_GROUP}"
workspace_name = "{WORKSPACE_NAME}"
endpoint = "{ENDPOINT}"
default_compute = "serverless"
"""
OUTPUTS = 'os.environ.get("AMLCTL_OUTPUTS_DIR", "outputs")'
"""Where a script writes what it leaves behind, on both sides, as Python source."""


class Side(ABC):
    """`project` is a folder with the scripts in `pipeline/`. Commands wait for nothing but the service's answer."""

    name: str

    def __init__(self, sandbox: Sandbox, project: Path, variables: Mapping[str, str]) -> None:
        """`variables` say how to reach the service, and which workspace it is."""
        self.project = project
        self._variables = {**sandbox.environment, **variables}

    @abstractmethod
    def submit(self, script: str, name: str) -> Command: ...

    @abstractmethod
    def status(self, run: str) -> Command: ...

    @abstractmethod
    def follow(self, run: str) -> Command:
        """Shows the log on standard output until the run ends."""

    @abstractmethod
    def fetch(self, run: str, target: Path) -> Command: ...

    def _command(self, shown: str, argv: list[str]) -> Command:
        return Command(self.name, shown, argv, self.project, self._variables)


class AmlctlSide(Side):
    name = "amlctl"

    def __init__(self, sandbox: Sandbox, project: Path, variables: Mapping[str, str]) -> None:
        super().__init__(sandbox, sandbox.new_project(project.name), variables)
        (self.project / ".amlctl.toml").write_text(_SETTINGS.format(**variables))

    def submit(self, script: str, name: str) -> Command:
        return self._amlctl("submit", script, "--name", name, "--detach")

    def status(self, run: str) -> Command:
        return self._amlctl("runs", "show", run)

    def follow(self, run: str) -> Command:
        return self._amlctl("logs", run, "-f")

    def fetch(self, run: str, target: Path) -> Command:
        return self._amlctl("fetch", run, "--to", str(target))

    def _amlctl(self, *arguments: str) -> Command:
        return self._command(f"amlctl {' '.join(arguments)}", [*amlctl(), *arguments])


class SdkSide(Side):
    name = "azure-ai-ml"

    def __init__(self, sandbox: Sandbox, project: Path, variables: Mapping[str, str]) -> None:
        super().__init__(sandbox, project, variables)
        (project / "pipeline").mkdir(parents=True)

    def submit(self, script: str, name: str) -> Command:
        return self._script("submit", name, script)

    def status(self, run: str) -> Command:
        return self._script("status", run)

    def follow(self, run: str) -> Command:
        return self._script("stream", run)

    def fetch(self, run: str, target: Path) -> Command:
        return self._script("download", run, str(target))

    def _script(self, *arguments: str) -> Command:
        program = Path(__file__).with_name("sdk_way.py")
        return self._command(f"sdk_way.py {' '.join(arguments)}", [sys.executable, str(program), *arguments])
