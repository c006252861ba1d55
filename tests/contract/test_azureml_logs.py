"""Logs of runs on the loopback Azure ML: by offset, of all phases, to their last line, and through outages."""
# ruff: noqa: F811  (fixtures)

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from amlctl.core.events import Event, LogText, Warned
from amlctl.errors import RightsError, ServiceUnavailable
from amlctl.operations.logs import FollowOptions, Outage, follow, log_pieces
from amlctl.runs.records import load_record
from tests.contract.workspace import WAITS_FOR_A_SIGNAL, Bench
from tests.support.azureml_bench import QUICK, bench, opened_bench, pointed_at  # noqa: F401  (fixtures)
from tests.support.azureml_service import AzureMLService
from tests.support.runs import wait_until

LINES = "import time\nfor n in range(40):\n    print('line', n, flush=True)\n    time.sleep(0.02)\n"
UNTIL_GO = "import os\nwhile not os.path.exists({!r}):\n    time.sleep(0.02)\n"


def expected_log(lines: int = 40) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(lines))


def followed(bench: Bench, run: str) -> bytes:
    """The log as a follower gets it, until it is final."""
    data = b""

    def is_at_end() -> bool:
        nonlocal data
        chunk = bench.workspace.read_log(run, len(data))
        data += chunk.data
        assert chunk.cursor == len(data)
        if not chunk.data and not chunk.is_final:
            bench.workspace.wait(run, len(data), 5.0)
        return chunk.is_final

    wait_until(is_at_end, what="the end of the log")
    return data


def test_last_lines_that_come_late(bench: Bench, azureml: AzureMLService) -> None:
    azureml.faults.last_lines_after_s = 0.2
    run = bench.start(LINES, distribution="mpi", processes=1)
    assert followed(bench, run).endswith(expected_log())
    bench.finished(run)
    assert bench.store.get(f"runs/{run}/logs/std_log_process_0.txt") == expected_log()


@pytest.mark.parametrize(("is_late", "digits"), [(False, 2), (True, 1)])
def test_logs_of_all_ranks_settle_together(azureml: AzureMLService, tmp_path: Path, is_late: bool, digits: int) -> None:
    azureml.faults.last_lines_after_s = 600.0 if is_late else 0.0
    azureml.faults.log_digits = digits  # the name of a log is the same
    pauses: list[float] = []

    def settle(seconds: float) -> None:
        pauses.append(seconds)
        azureml.faults.last_lines_after_s = 0.0
        azureml.job(run).wait()  # for the last lines

    with opened_bench(azureml, tmp_path, settle=settle) as bench:
        run = bench.start("import os\nprint('last of', os.environ['RANK'])", distribution="pytorch", processes=4)
        azureml.job(run).wait_for("Completed")
        if not is_late:
            azureml.job(run).wait()
        assert bench.workspace.read(run).status == "Completed"
        texts = [bench.store.get(f"runs/{run}/logs/std_log_process_{rank}.txt").decode() for rank in range(4)]
    assert [text.splitlines()[-1] for text in texts] == [f"last of {rank}" for rank in range(4)]
    assert len(pauses) == (2 if is_late else 1)


def test_last_lines_do_not_wait_for_what_is_done_at_the_end(azureml: AzureMLService, tmp_path: Path) -> None:
    """That may be much: a large log is put into the store, datasets are published."""
    state_first = replace(QUICK, log_poll_s=30.0)  # so that the end is seen before the last line
    with opened_bench(azureml, tmp_path, timing=state_first) as bench:
        run = bench.start("import time\ntime.sleep(1)\nprint('last', flush=True)\n")
        before: list[bool] = []

        def sink(event: Event) -> None:
            if isinstance(event, LogText) and "last" in event.text:
                stored = load_record(bench.store, run)
                before.append(stored is None or not stored.is_final)

        assert follow(replace(bench, sink=sink), run).status == "Completed"
        assert before == [True]


@pytest.mark.parametrize("status", [503, 401])
def test_a_follower_survives_an_outage(azureml: AzureMLService, tmp_path: Path, status: int) -> None:
    """Reported once; the log continues where it was."""
    text, warnings, go = "", 0, tmp_path / "go"

    def sink(event: Event) -> None:
        nonlocal text, warnings
        if isinstance(event, LogText):
            if not text:
                azureml.faults.answer(status, "GET .*/details", times=12)
                go.touch()
            text += event.text
        warnings += isinstance(event, Warned)

    with opened_bench(azureml, tmp_path, sleep=lambda seconds: None) as bench:
        run = bench.start(LINES + UNTIL_GO.format(str(go)))
        assert follow(replace(bench, sink=sink), run, FollowOptions(outage=Outage(0.01))).status == "Completed"
    assert text.encode().endswith(expected_log())
    assert warnings == 1


def test_following_stops_after_a_long_silence(azureml: AzureMLService, tmp_path: Path) -> None:
    def sink(event: Event) -> None:
        if isinstance(event, LogText):
            azureml.faults.answer(503, "GET .*/details", times=1 << 20)

    with opened_bench(azureml, tmp_path, sleep=lambda seconds: None) as bench:
        run = bench.start(WAITS_FOR_A_SIGNAL)
        with pytest.raises(ServiceUnavailable):
            follow(replace(bench, sink=sink), run, FollowOptions(outage=Outage(0.01, 0.1)))
        azureml.faults.reset()
        bench.workspace.cancel(run)
        bench.finished(run)


def test_logs_that_are_listed_late(bench: Bench, azureml: AzureMLService) -> None:
    azureml.faults.logs_listed_after_s = 0.5
    assert followed(bench, bench.start(LINES)).endswith(expected_log())


def test_an_address_of_a_log_that_is_old_is_asked_for_again(bench: Bench, azureml: AzureMLService) -> None:
    run = bench.start(WAITS_FOR_A_SIGNAL)
    bench.wait_for_log(run, b"ready")
    azureml.faults.signed_for_s = -60.0

    def is_refused() -> bool:
        bench.workspace.read(run)
        try:
            bench.log_so_far(run)
        except RightsError:
            return True
        return False

    wait_until(is_refused)  # once the addresses from before are not used anymore
    azureml.faults.signed_for_s = 3600.0
    assert b"ready" in bench.log_so_far(run)
    bench.workspace.cancel(run)
    bench.finished(run)


def test_image_build_comes_before_the_log(bench: Bench, azureml: AzureMLService) -> None:
    azureml.environments.built.clear()
    azureml.faults.image_build_s = 1.0
    run = bench.start(LINES)
    data = followed(bench, run)
    assert data.startswith(b"Building the image")
    assert data.endswith(b"Image was built\n" + expected_log())
    assert bench.log(run) == data
    assert bench.workspace.log_names(run)[0] == "std_log.txt"
    assert bench.store.get(f"runs/{run}/logs/std_log.txt") == expected_log()


def test_image_that_cannot_be_built(bench: Bench, azureml: AzureMLService) -> None:
    azureml.environments.built.clear()
    azureml.faults.image_build_fails = True
    azureml.faults.image_build_s = 0.5  # so that its log is seen before it is replaced
    run = bench.start(LINES)
    assert b"Pip failed" in followed(bench, run)
    record = bench.finished(run)
    assert (record.status, record.exit_code) == ("Failed", None)
    assert record.error is not None
    assert "Image build failed" in record.error["message"]
    assert b"Pip failed" in bench.log(run)


@pytest.mark.parametrize("how", ["rewritten", "continued", "apart"])
def test_preempted(bench: Bench, azureml: AzureMLService, how: Literal["rewritten", "continued", "apart"]) -> None:
    azureml.faults.log_after_preemption = how
    script = """
        import os, time
        attempt = os.environ["AMLCTL_ATTEMPT"]
        path = os.path.join(os.environ["AMLCTL_OUTPUTS_DIR"], "kept.txt")
        print("attempt", attempt, flush=True)
        if attempt == "1":
            open(path, "w").write("from the first")
            time.sleep(600)
        print("found", open(path).read(), flush=True)
    """
    run = bench.start(script)
    bench.wait_for_log(run, b"attempt 1")
    azureml.preempt(run, grace_s=10.0)
    data = followed(bench, run)
    record = bench.workspace.read(run)
    assert (record.status, record.exit_code) == ("Completed", 0), record.error
    assert b"attempt 2" in data
    assert b"found from the first" in data
    assert bench.workspace.log_names(run)[0] == "std_log.txt"
    if how == "apart":  # together they are the log: from the start, from its end, and in the store
        assert data.startswith(b"attempt 1")
        assert bench.log(run) == data == bench.store.get(f"runs/{run}/logs/std_log.txt")
        assert "".join(log_pieces(bench.workspace, run, tail=100)).encode() == data
        assert "".join(log_pieces(bench.workspace, run, tail=1)) == "found from the first\n"
