"""`config show`: each setting with its value and where it comes from."""

from __future__ import annotations

from tests.cli.conftest import Cli


def test_each_value_has_its_origin(project: Cli) -> None:
    lines = (project.cwd / ".amlctl.toml").read_text().splitlines()
    number = 1 + next(i for i, line in enumerate(lines) if line.startswith("experiment"))
    answer = project("config", "show", "--json", variables={"AMLCTL_SUBMIT_MODE": "download"})
    found = {one["key"]: (one["value"], one["origin"]) for one in answer.document["settings"]}
    assert found["experiment"] == ("default", f".amlctl.toml:{number}")
    assert found["submit.mode"] == ("download", "AMLCTL_SUBMIT_MODE")
    assert found["submit.on_interrupt"][0] == "ask"
    assert found["cache.limit"] == (20 << 30, "default")
    assert project.json("--workspace", "local", "config", "show")["settings"][0] == {
        "key": "default_workspace",
        "value": "local",
        "origin": "--workspace",
    }


def test_the_text_is_a_table(project: Cli) -> None:
    answer = project("config", "show")
    assert answer.out.splitlines()[0].split() == ["SETTING", "VALUE", "FROM"]
    assert "workspaces.local.store" in answer.out


def test_a_workspace_that_cannot_be_used_is_named(project: Cli) -> None:
    project.write(".amlctl.toml", '[workspaces.cloud]\ncompute = "azureml"\nidentty = "managed"\n')
    answer = project("config", "show")
    assert answer.code == 0
    assert "workspaces.cloud" not in answer.out
    assert (
        answer.err == "warning: workspace cloud cannot be used: .amlctl.toml:3: unknown key workspaces.cloud.identty\n"
    )
