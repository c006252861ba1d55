"""Metrics from where a script writes them to the record and to `runs show`, in both workspaces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amlctl.core.events import RunWatched, Warned
from amlctl.core.metrics import MAX_BYTES
from amlctl.core.store_keys import outputs_index_key
from amlctl.operations import runs
from amlctl.operations.metrics import metrics_of, series_of
from amlctl.operations.watch import Watch
from tests.operations.test_azureml import Amlctl, amlctl, project, service
from tests.support.azureml_bench import opened_bench
from tests.support.azureml_service import AzureMLService
from tests.support.bench import Bench, wait_for_state
from tests.support.runs import wait_until

__all__ = ["amlctl", "opened_bench", "project", "service"]

_ALL = """
    import json, os, pathlib, urllib.parse, urllib.request
    out = pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"])
    out.joinpath("metrics.json").write_text(json.dumps({"accuracy": 0.9, "losses": [3, 2]}))
    with out.joinpath("metrics.jsonl").open("w") as file:
        for step in range(3):
            print(json.dumps({"step": step, "loss": 1 / (step + 1), "accuracy": 0.1}), file=file)
    # The files of MLflow 2 and 3, as its file store writes them.
    address = os.environ["MLFLOW_TRACKING_URI"]
    root = pathlib.Path(urllib.request.url2pathname(urllib.parse.urlsplit(address).path))
    assert (address.startswith("file:///"), os.environ["MLFLOW_ALLOW_FILE_STORE"]) == (True, "true")
    run = root / "0" / ("a" * 32)
    run.joinpath("metrics/val").mkdir(parents=True)
    run.joinpath("meta.yaml").write_text("lifecycle_stage: active\\nstart_time: 1700000000000\\n")
    run.joinpath("metrics/val/loss").write_text("1700000000001 0.75 0\\n1700000000002 nan 1\\n")
    run.joinpath("metrics/loss").write_text("1700000000001 99.0 0\\n")
"""


def test_all_sources_are_in_the_record_and_series_in_the_outputs(bench: Bench) -> None:
    bench.script(_ALL)
    record = bench.submit("train.py").record
    assert record.status == "Completed", record.error
    assert record.metrics == {"accuracy": 0.9, "losses": 2, "loss": 1 / 3, "val/loss": "NaN"}
    assert bench.workspace.read(record.run).metrics == record.metrics
    metrics = metrics_of(bench, record)
    series = series_of(bench, record, metrics, ["loss", "accuracy", "losses", "none"])
    assert series["loss"] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert series["losses"] == [(0, 3), (1, 2)]
    assert series.keys() == {"loss", "accuracy", "losses"}
    assert runs.show(bench, record.run).to_json()["metrics"]["losses"] == [3, 2]
    assert (bench.project.outputs_dir / record.run / "mlruns/0").is_dir()


def test_the_users_own_server_is_left_alone(bench: Bench) -> None:
    bench.script("import os; print('at', os.environ['MLFLOW_TRACKING_URI'], os.environ.get('MLFLOW_ALLOW_FILE_STORE'))")
    variables = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1/mlflow"}
    run = bench.submit("train.py", variables=variables).record.run
    assert b"at http://127.0.0.1:1/mlflow None" in bench.workspace.read_log(run, 0).data


def test_an_active_run_shows_what_was_saved_so_far(bench: Bench, tmp_path: Path) -> None:
    go = tmp_path / "go"
    bench.script(f"""
        import os, pathlib, time
        while not os.path.exists({str(go)!r}): time.sleep(0.01)
        out = pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"])
        out.joinpath("metrics.jsonl").write_text('{{"loss": 2}}\\n{{"loss": 1}}\\n{{"lo')
        while True: time.sleep(0.1)
    """)
    run = bench.submit("train.py", is_detached=True).record.run
    wait_until(lambda: bench.store.info(outputs_index_key(run)) is not None, "the list of outputs, which is empty")
    Watch(bench, run).look(bench.workspace.read(run))
    go.touch()
    wait_until(lambda: runs.show(bench, run).metrics.last == {"loss": 1}, "metrics of the active run")
    Watch(bench, run).look(bench.workspace.read(run))
    assert [event.saved_s is None for event in bench.reported(RunWatched)] == [True, False]
    bench.workspace.cancel(run)
    assert wait_for_state(bench, run, "Canceled").metrics == {"loss": 1}


def test_metrics_that_cannot_be_read_once_are_read_by_the_next_look(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pause in ("_LOOK_S", "_RESULTS_S"):
        monkeypatch.setattr(f"amlctl.operations.watch.{pause}", 0.0)
    bench.script("""
        import os, pathlib
        pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"], "metrics.json").write_text('{"loss": 1}')
    """)
    record = bench.submit("train.py").record
    stored = Path(bench.store.url) / "runs" / record.run / "outputs/metrics.json"
    kept = stored.rename(stored.with_name("kept"))
    stored.mkdir()
    watch = Watch(bench, record.run)
    watch.look(record)
    stored.rmdir()
    kept.rename(stored)
    watch.look(record)
    assert [dict(event.metrics) for event in bench.reported(RunWatched)] == [{}, {"loss": 1}]


@pytest.mark.parametrize(
    ("write", "warning"),
    [
        ("out.joinpath('metrics.json').write_bytes(bytes(range(256)))", "metrics.json is not used: it is not JSON"),
        (f"open(out / 'metrics.jsonl', 'wb').truncate({MAX_BYTES + 1})", "metrics.jsonl is not used: it has 67 MB"),
        ("out.joinpath('metrics.json').mkdir()", ""),
        ("out.joinpath('metrics.jsonl').write_text('loss: 1\\n')", "line 1 of metrics.jsonl: not used"),
    ],
)
def test_files_that_cannot_be_used_are_warned_of_and_fail_nothing(bench: Bench, write: str, warning: str) -> None:
    bench.script(f"import os, pathlib; out = pathlib.Path(os.environ['AMLCTL_OUTPUTS_DIR'])\n{write}")
    record = bench.submit("train.py").record
    assert (record.status, record.metrics) == ("Completed", {})
    assert warning in bench.workspace.read_log(record.run, 0).data.decode()
    runs.show(bench, record.run)
    warned = [event.message for event in bench.reported(Warned)]
    assert [warning in message for message in warned] == [True] * bool(warning)


_SENDS = """\
import json, os, time, urllib.request
from file_paths import outputs_dir
open(os.path.join(outputs_dir(), "metrics.json"), "w").write('{"accuracy": 0.9}')
address = os.environ["MLFLOW_TRACKING_URI"].partition("?")[0].replace("azureml", "https", 1)
points = [{"key": "train/loss", "value": v, "step": s, "timestamp": 1700000000000} for s, v in enumerate([3, 2, 1.5])]
body = {"run_id": os.environ["MLFLOW_RUN_ID"], "metrics": [*points, {"key": "bad", "value": "NaN", "timestamp": 1}]}
request = urllib.request.Request(address + "/api/2.0/mlflow/runs/log-batch", json.dumps(body).encode(), method="POST")
request.add_header("Content-Type", "application/json")
request.add_header("Authorization", "Bearer " + os.environ["MLFLOW_TRACKING_TOKEN"])
urllib.request.urlopen(request).read()
"""


def test_metrics_of_the_workspace_are_in_the_record(amlctl: Amlctl, project: Path, service: AzureMLService) -> None:
    service.faults.has_tracking = True
    service.faults.page_size = 2
    (project / "pipeline/train.py").write_text(_SENDS)
    done = amlctl("--json", "submit", "train.py")
    assert done.code == 0, done.err
    assert done.document["metrics"] == {"accuracy": 0.9, "train/loss": 1.5, "bad": "NaN"}
    shown = amlctl("--json", "runs", "show", done.document["run"])
    assert shown.document["metrics"] == done.document["metrics"]
    record = json.loads((project / ".amlctl/runs" / done.document["run"] / "record.json").read_text())
    assert record["metrics"] == done.document["metrics"]
    plotted = amlctl("--json", "runs", "plot", done.document["run"], "--metric", "train/loss")
    assert plotted.document["runs"] == [{"run": done.document["run"], "points": [[0, 3], [1, 2], [2, 1.5]]}]
    assert amlctl("runs", "report", done.document["run"], "-o", "page.html").code == 0
    assert '<polyline points="' in (project / "page.html").read_text()
    (project / "pipeline/train.py").write_text(_SENDS.replace('"accuracy": 0.9', '"accuracy": 0.95'))
    second = amlctl("--json", "submit", "train.py")
    assert second.code == 0, second.err
    runs_ = [done.document["run"], second.document["run"]]
    compared = amlctl("--json", "runs", "compare", *runs_).document
    assert compared["code"][1]["modified"] == ["pipeline/train.py"]
    assert compared["metrics"][0] == {"name": "accuracy", "values": [0.9, 0.95], "deltas": [0, pytest.approx(0.05)]}
    listed = amlctl("--json", "runs", "--sort", "accuracy").document
    assert [record["run"] for record in listed["runs"]] == runs_[::-1]
