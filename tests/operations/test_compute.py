from __future__ import annotations

import pytest

from amlctl.core.events import Warned
from amlctl.core.settings import WorkspaceSettings
from amlctl.errors import NotFound, SettingsError, UsageError
from amlctl.operations import compute
from tests.support.bench import Bench

CLUSTER = """
    $schema: https://azuremlschemas.azureedge.net/latest/amlCompute.schema.json
    name: gpu
    type: amlcompute
    size: Standard_NC24ads_A100_v4
    min_instances: 0
    max_instances: 2
"""


@pytest.fixture(autouse=True)
def targets(bench: Bench) -> None:
    bench.write("compute/local.yaml", "name: local\ntype: local\nslots: 2\n")
    bench.write("compute/gpu.yaml", CLUSTER)


def test_targets_are_listed_from_their_files(bench: Bench) -> None:
    views = compute.list_targets(bench)
    assert [view.target.name for view in views] == ["gpu", "local"]
    assert "azureml" in views[0].note
    assert views[1].to_json()["slots"] == 2
    assert views[1].state == "ready"


def test_the_local_target_needs_no_file(bench: Bench) -> None:
    (bench.project.compute_dir / "local.yaml").unlink()
    assert compute.show(bench, "local").state == "ready"


def test_creating_a_local_target_is_idempotent(bench: Bench) -> None:
    for _ in range(2):
        result = compute.create(bench, "local", cwd=bench.project.root)
        assert (result.name, result.is_reused) == ("local", True)
    assert compute.create(bench, "compute/local.yaml", cwd=bench.project.root).is_reused


def test_a_different_local_target_is_recognized(bench: Bench) -> None:
    bench.write("other.yaml", "name: local\ntype: local\nslots: 5\n")
    with pytest.raises(UsageError, match="slots"):
        compute.create(bench, "other.yaml", cwd=bench.project.root)


@pytest.mark.parametrize("verb", [compute.start, compute.stop, compute.delete])
@pytest.mark.parametrize("name", ["local", "gpu"])
def test_a_local_workspace_has_nothing_to_start_or_stop(bench: Bench, verb: object, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        verb(bench, name)  # type: ignore[operator]
    assert name in caught.value.message


def test_an_unknown_target_shows_the_nearest(bench: Bench) -> None:
    with pytest.raises(NotFound) as caught:
        compute.show(bench, "gpus")
    assert "gpu" in caught.value.hint


def test_a_run_goes_only_to_targets_of_its_workspace(bench: Bench) -> None:
    cloud = WorkspaceSettings("cloud", compute="azureml", default_compute="gpu")
    bench = bench.with_settings(workspaces={**bench.settings.workspaces, "cloud": cloud})
    compute.check_target(bench, "local")
    compute.check_target(bench.in_workspace("cloud"), "gpu")
    compute.check_target(bench.in_workspace("cloud"), "serverless")
    assert compute.default_target(bench.settings, "cloud") == "gpu"
    for workspace, target in (("local", "gpu"), ("cloud", "local")):
        with pytest.raises(UsageError) as caught:
            compute.check_target(bench.in_workspace(workspace), target)
        assert "--workspace" in caught.value.hint


def test_a_foreign_file_does_not_stop_those_who_do_not_need_it(bench: Bench) -> None:
    bench.write("compute/spark.yml", "name: spark\ntype: synapsespark\n")
    bench.script("print(1)")
    assert bench.submit("train.py").record.status == "Completed"
    assert ["compute/spark.yml" in one.message for one in bench.reported(Warned)] == [True]
    assert compute.show(bench, "local").to_json()["slots"] == 2
    views = compute.list_targets(bench)
    assert [(view.target.name, view.state) for view in views] == [
        ("gpu", "unknown"),
        ("local", "ready"),
        ("spark", "broken"),
    ]
    assert "synapsespark" in views[2].to_json()["note"]
    for action in (
        lambda: compute.show(bench, "spark"),
        lambda: bench.submit("train.py", compute="spark"),
        lambda: compute.create(bench, "spark", cwd=bench.project.root),
    ):
        with pytest.raises(SettingsError, match=r"compute/spark\.yml:2"):
            action()


def test_a_broken_local_file_stops_local_runs(bench: Bench) -> None:
    """It says how many runs may go at a time."""
    bench.write("compute/local.yaml", "name: local\ntype: local\nslots: two\n")
    bench.script("print(1)")
    with pytest.raises(SettingsError, match=r"compute/local\.yaml:3"):
        bench.submit("train.py")
    assert [view.state for view in compute.list_targets(bench)] == ["unknown", "broken"]
