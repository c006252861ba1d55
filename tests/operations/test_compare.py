"""What differs between runs: config, code, data and environment against the first one, and all metrics."""

from __future__ import annotations

import pytest

from amlctl.core.events import Warned
from amlctl.core.run import RunRecord
from amlctl.core.store_keys import code_index_key
from amlctl.errors import UsageError
from amlctl.operations import runs
from amlctl.operations.compare import Comparison, Counts, FileChanges, compare
from tests.support.bench import Bench

METRICS = """
    import json, os, pathlib, sys
    config = json.loads(pathlib.Path(sys.argv[2]).read_text())
    out = pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"])
    metrics = {"test": {"accuracy": config["rate"]}, "same": 1, "loss": float("nan")}
    out.joinpath("metrics.json").write_text(json.dumps(metrics))
"""


def compared(bench: Bench, *records: RunRecord, with_patch: bool = False) -> Comparison:
    return compare([runs.RunAt(record.run, bench) for record in records], with_patch=with_patch)


@pytest.fixture
def two(bench: Bench) -> tuple[RunRecord, RunRecord]:
    bench.script(METRICS)
    bench.write("pipeline/c.json", '{"rate": 0.1, "deep": {"x": 1}}')
    bench.write("pipeline/old.py", "1\n2\n3\n")
    bench.write("pipeline/gone.py", "x = 1\n")
    bench.write("pipeline/data.bin", "a\0b")
    for number in range(5):
        bench.write(f"data_blobs/raw/{number}.txt", f"{number}")
    one = bench.submit("train.py", config="c.json", datasets=("raw",)).record
    bench.write("data_blobs/raw/0.txt", "changed")
    bench.write("data_blobs/raw/new.txt", "new")
    bench.write("data_blobs/raw/new2.txt", "new")
    (bench.project.data_blobs_dir / "raw/4.txt").unlink()
    bench.write("pipeline/old.py", "1\ntwo\n3\n")
    bench.write("pipeline/added.py", "y = 2")
    bench.write("pipeline/data.bin", "a\0c")
    (bench.project.pipeline_dir / "gone.py").unlink()
    return one, bench.submit("train.py", config="c.json", datasets=("raw",), overrides=("rate=0.5",)).record


def test_comparing_shows_what_differs(bench: Bench, two: tuple[RunRecord, RunRecord]) -> None:
    one, other = two
    comparison = compared(bench, one, other)
    rows = {row.field: row.values for row in comparison.differences}
    assert rows["config.rate"] == (0.1, 0.5)
    assert rows["dataset raw"] == (one.spec.datasets["raw"], other.spec.datasets["raw"])
    assert not rows.keys() & {"config.deep.x", "script", "status"}
    assert comparison.data == {"raw": (None, Counts(added=2, modified=1, deleted=1))}
    changes = FileChanges(["pipeline/added.py"], ["pipeline/data.bin", "pipeline/old.py"], ["pipeline/gone.py"])
    assert comparison.code == (None, changes)
    metrics = {row.field: (row.values, row.deltas) for row in comparison.metrics}
    assert metrics == {
        "test.accuracy": ((0.1, 0.5), (0.0, 0.4)),
        "same": ((1, 1), (0, 0)),
        "loss": (("NaN", "NaN"), (None, None)),
    }
    document = comparison.to_json()
    fields = {row["field"]: row["values"] for row in document["differences"]}
    assert fields["metrics.test.accuracy"] == [0.1, 0.5]
    assert "metrics.same" not in fields
    assert document["data"] == {"raw": [None, {"added": 2, "modified": 1, "deleted": 1}]}
    assert "patch" not in document
    view = runs.show(bench, other.run)
    assert view.config == {"rate": 0.5, "deep.x": 1}
    assert view.to_json()["metrics"] == {"test.accuracy": 0.5, "same": 1, "loss": "NaN"}


def test_a_patch_is_that_of_the_code(bench: Bench, two: tuple[RunRecord, RunRecord]) -> None:
    patch = compared(bench, *two, with_patch=True).patch
    assert patch == [
        *("diff a/pipeline/added.py b/pipeline/added.py", "--- /dev/null", "+++ b/pipeline/added.py", "@@ -0,0 +1 @@"),
        "+y = 2",
        "Binary or large files a/pipeline/data.bin and b/pipeline/data.bin differ",
        *("diff a/pipeline/gone.py b/pipeline/gone.py", "--- a/pipeline/gone.py", "+++ /dev/null", "@@ -1 +0,0 @@"),
        "-x = 1",
        *("diff a/pipeline/old.py b/pipeline/old.py", "--- a/pipeline/old.py", "+++ b/pipeline/old.py"),
        *("@@ -1,3 +1,3 @@", " 1", "-2", "+two", " 3"),
    ]


def test_what_the_store_no_longer_has_is_a_warning(bench: Bench, two: tuple[RunRecord, RunRecord]) -> None:
    one, other = two
    bench.store.delete(code_index_key(one.spec.code))
    bench.store.delete(one.spec.manifests["raw"])
    comparison = compared(bench, one, other)
    assert comparison.code == (None, None)
    assert comparison.data == {}
    assert "dataset raw" in {row.field for row in comparison.differences}
    messages = [event.message for event in bench.reported(Warned)]
    assert [one.spec.code in messages[0], messages[1].startswith("raw: files are not compared")] == [True, True]


def test_a_run_is_not_compared_with_itself(bench: Bench) -> None:
    bench.script("print(1)")
    record = bench.submit("train.py").record
    with pytest.raises(UsageError):
        compared(bench, record, record)
