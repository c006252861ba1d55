"""Commands of compute and runs on the loopback Azure ML, as a user types them."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

import pytest

from tests.cli.terminal import Terminal
from tests.operations.test_azureml import Amlctl, amlctl, project, service
from tests.support.azureml_service import AzureMLService

__all__ = ["amlctl", "project", "service"]


def make_cluster(amlctl: Amlctl, project: Path) -> str:
    name = f"c{uuid.uuid4().hex[:8]}"
    (project / "compute/gpu.yaml").write_text(f"name: {name}\ntype: amlcompute\nsize: Standard_DS3_v2\n")
    assert amlctl("compute", "create", name).code == 0
    return name


def test_deleting_a_target_asks(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    name = make_cluster(amlctl, project)
    done = amlctl("--json", "compute", "delete", name)
    assert (done.code, done.document["error"]["kind"]) == (5, "needs_confirmation")
    assert done.document["error"]["hint"] == f"amlctl compute delete {name} --yes"
    variables = {key: value for key, value in service.stock_variables.items() if "STORAGE" not in key}
    command = [sys.executable, "-m", "amlctl", "compute", "delete", name]
    for typed, code in (("n", 1), ("y", 0)):
        terminal = Terminal(command, project, variables={**os.environ, **variables})
        terminal.wait_for("y/N")
        terminal.type(f"{typed}\n")
        assert terminal.finish() == code
        assert amlctl("compute", "show", name, "--json").document["state"] == ("ready" if code else "not made")
    make_cluster(amlctl, project)


def test_a_target_that_nobody_has_is_missed_at_once(amlctl: Amlctl, project: Path) -> None:
    name = make_cluster(amlctl, project)
    (project / "compute/gpu.yaml").unlink()
    for command in ("show", "start", "stop", "delete"):
        done = amlctl("--json", "compute", command, "nowhere-at-all")
        assert done.code == 4, done.err
        assert name in done.document["error"]["hint"]
    assert amlctl("compute", "show", name[:-1]).err.endswith(f"did you mean {name}?\n")
    done = amlctl("--json", "submit", "train.py", "--compute", "nowhere-at-all")
    assert (done.code, name in done.document["error"]["hint"]) == (4, True)


@pytest.mark.parametrize("name", ["local"])
def test_what_cannot_be_deleted_is_not_asked_about(amlctl: Amlctl, name: str) -> None:
    done = amlctl("--json", "--workspace", "local", "compute", "delete", name)
    assert (done.code, done.document["error"]["kind"]) == (2, "usage")
