"""`submit --needed`, `submit --after` and `runs wait`."""

from __future__ import annotations

import pytest

from amlctl.core.events import Note
from amlctl.errors import RunFailed
from amlctl.operations.runs import RunAt
from amlctl.operations.submit.submit import plan
from amlctl.operations.waiting import wait_for
from tests.support.bench import Bench

SCRIPT = "import sys; print('works'); sys.exit(len(sys.argv) > 1 and int(sys.argv[1]))\n"


def test_an_equal_run_is_used_until_something_differs(bench: Bench) -> None:
    bench.write("data_blobs/images/a.txt", "a")
    script = bench.script(SCRIPT)
    first = bench.submit(script, datasets=["images"], is_needed_only=True)
    again = bench.submit(script, datasets=["images"], is_needed_only=True)
    assert (first.is_reused, again.is_reused) == (False, True)
    assert again.record.run == first.record.run
    assert again.to_json()["is_reused"] is True
    assert any("not running it again" in note.message for note in bench.reported(Note))
    request = bench.request(script, datasets=["images"], is_needed_only=True)
    assert plan(bench, request).to_json()["equal_run"] == first.record.run
    bench.write("data_blobs/images/a.txt", "b")
    assert plan(bench, request).to_json()["equal_run"] is None
    assert not bench.submit(script, datasets=["images"], is_needed_only=True).is_reused
    bench.script(SCRIPT + "# changed\n")
    assert not bench.submit(script, datasets=["images"], is_needed_only=True).is_reused
    assert not bench.submit(script, datasets=["images"], arguments=["0"], is_needed_only=True).is_reused
    assert len(bench.workspace.list_runs()) == 4


def test_a_failed_run_is_not_used(bench: Bench) -> None:
    script = bench.script(SCRIPT)
    for _ in range(2):
        assert not bench.submit(script, arguments=["1"], is_needed_only=True).is_reused


def test_what_it_has_produced_must_still_be_the_latest(bench: Bench) -> None:
    text = "import pathlib; pathlib.Path('data_blobs/made').mkdir(); pathlib.Path('data_blobs/made/x').write_text('1')"
    script = bench.script(text)
    assert bench.submit(script, produces=["made"]).record.status == "Completed"
    assert bench.submit(script, produces=["made"], is_needed_only=True).is_reused
    other = bench.script(text.replace("'1'", "'2'"), "other.py")
    assert bench.submit(other, produces=["made"]).record.status == "Completed"
    assert not bench.submit(script, produces=["made"], is_needed_only=True).is_reused


def test_wait_says_how_runs_have_ended(bench: Bench) -> None:
    script = bench.script(SCRIPT)
    good = bench.submit(script, is_detached=True).record.run
    bad = bench.submit(script, arguments=["3"], is_detached=True).record.run
    waited = wait_for([RunAt(good, bench), RunAt(bad, bench)])
    assert [record.status for record in waited.records] == ["Completed", "Failed"]
    assert waited.failure is not None
    assert bad in waited.failure.message
    assert waited.to_json()["runs"][1]["exit_code"] == 3


def test_a_run_after_another_one_sees_what_that_has_produced(bench: Bench) -> None:
    text = "import pathlib, time; time.sleep(0.3); p = pathlib.Path('data_blobs/made'); p.mkdir(); (p / 'x').touch()"
    first = bench.submit(bench.script(text, "make.py"), produces=["made"], is_detached=True).record.run
    second = bench.submit(bench.script("open('data_blobs/made/x')", "use.py"), datasets=["made"], after=[first])
    assert second.record.status == "Completed"
    failing = bench.submit(bench.script(SCRIPT), arguments=["1"], is_detached=True).record.run
    with pytest.raises(RunFailed, match="so nothing was submitted"):
        bench.submit("use.py", datasets=["made"], after=[failing])
