from __future__ import annotations

import pytest

from amlctl.core.store_keys import outputs_index_key
from amlctl.errors import Conflict, NotFound
from amlctl.operations import runs
from amlctl.operations.find_run import resolve_run
from amlctl.operations.runs import RunAt
from tests.support.bench import Bench, wait_for_state

FOREVER = "import time\nwhile True: time.sleep(0.1)\n"


def test_runs_are_listed_newest_first_and_found_by_reference(bench: Bench) -> None:
    bench.script("print(1)")
    first = bench.submit("train.py", name="first").record.run
    second = bench.submit("train.py", name="second").record.run

    listed = runs.list_runs(bench)
    assert [record.run for record in listed] == [second, first]
    assert resolve_run(bench.workspace, "@last") == second
    assert resolve_run(bench.workspace, "@2") == first
    assert resolve_run(bench.workspace, "fir") == first
    assert resolve_run(bench.workspace, second) == second
    for reference in ("third", "@3", "no such/run"):
        with pytest.raises(NotFound):
            resolve_run(bench.workspace, reference)
    assert bench.workspace.read(first).spec.name == "first"


def test_a_going_run_is_canceled_but_not_deleted(bench: Bench) -> None:
    bench.script("print(1)")
    ended = bench.submit("train.py").record.run
    bench.script(FOREVER)
    run = bench.submit("train.py", is_detached=True).record.run
    with pytest.raises(Conflict):
        runs.delete([RunAt(ended, bench), RunAt(run, bench)])
    assert bench.workspace.read(ended).status == "Completed"
    assert not runs.cancel(bench.workspace, run).was_ended
    wait_for_state(bench, run, "Canceled")
    assert runs.cancel(bench.workspace, run).was_ended
    runs.delete([RunAt(run, bench)])
    with pytest.raises(NotFound):
        runs.show(bench, run)
    assert not list(bench.store.list(f"runs/{run}/"))


def test_opening_a_run_is_its_folder(bench: Bench) -> None:
    bench.script("import os, pathlib; pathlib.Path(os.environ['AMLCTL_OUTPUTS_DIR'], 'made').touch()")
    run = bench.submit("train.py", fetch_outputs=False).record.run
    with pytest.raises(NotFound) as caught:
        runs.open_run(bench, run)
    assert caught.value.hint == f"amlctl fetch {run}"
    (bench.project.outputs_dir / run).mkdir(parents=True)
    assert runs.open_run(bench, run) == str(bench.project.outputs_dir / run)


def test_a_run_without_outputs_has_nothing_to_open_or_fetch(bench: Bench) -> None:
    bench.script("print(1)")
    run = bench.submit("train.py").record.run
    with pytest.raises(NotFound, match="has no outputs") as caught:
        runs.open_run(bench, run)
    assert caught.value.hint == f"amlctl logs {run}"
    bench.store.delete(outputs_index_key(run))
    with pytest.raises(NotFound) as caught:
        runs.open_run(bench, run)
    assert caught.value.hint == f"amlctl fetch {run}", "which says that the list of outputs is lost"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 700 + "1" + "}" * 700, '{"a": ' + "9" * 5000 + "}", "\x00"])
def test_metrics_that_cannot_be_shown_do_not_stop_the_run_from_being_shown(bench: Bench, text: str) -> None:
    bench.script(
        f"""
        import os, pathlib
        pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"]).joinpath("metrics.json").write_text({text!r})
        """
    )
    run = bench.submit("train.py").record.run
    view = runs.show(bench, run)
    assert view.record.status == "Completed"
    assert view.to_json()["metrics"] == {}
