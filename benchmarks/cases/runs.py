"""The list of runs in a project that has had many."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from measure import CommandFailed, interleaved
from result import Goal, Result, rows_of
from sandbox import Sandbox

from amlctl.core.run import RunRecord, RunSpec
from amlctl.core.run_id import new_run_id
from amlctl.core.run_state import RunState
from amlctl.runs.records import save_both
from amlctl.stores.directory import DirectoryStore

_RUNS = 1_000
_REPETITIONS = 15
"""At least: the runs of this benchmark are short."""
_FIRST = datetime(2026, 1, 1, tzinfo=UTC)


def measure(sandbox: Sandbox) -> Result:
    count = max(1, round(_RUNS * sandbox.scale))
    project = sandbox.new_project("runs")
    _record_runs(project, count)
    ours = sandbox.amlctl("amlctl", ["runs"], project)
    listed = sandbox.answer_of(sandbox.amlctl("amlctl", ["runs"], project))
    if len(listed if isinstance(listed, list) else listed["runs"]) != count:
        raise CommandFailed(f"amlctl runs does not list {count} runs")
    start = sandbox.amlctl("start", ["--version"], project)
    samples = interleaved([ours, start], max(sandbox.repetitions, _REPETITIONS), sandbox.tell)
    over_start = samples[0].median_s - samples[1].median_s
    return Result(
        "runs",
        f"{count:,} recorded runs",
        rows_of([ours, start], samples),
        [Goal("at most 0.3 s longer than amlctl --version", over_start, 0.3, "s")],
    )


def _record_runs(project: Path, count: int) -> None:
    """Records as the local workspace keeps them; two of three runs have completed, one has failed."""
    state_dir = project / ".amlctl"
    store = DirectoryStore(state_dir / "store")
    for number in range(count):
        created = _FIRST + timedelta(minutes=7 * number)
        run = new_run_id("model_train", created, f"{number:04x}")
        record = RunRecord(
            run,
            RunSpec(
                script="image/classification/screenshot/model_train.py",
                name="model_train",
                experiment="ScreencopyDetection",
                config="baseline.json",
                config_content={"epochs": 4, "learning_rate": 0.001, "seed": number},
                code=f"{number:032x}",
                datasets={"working/image/classification/screenshot/64x64": f"{number:032x}"},
                environment=f"local-{number % 7:016x}",
            ),
            command_line=["amlctl", "submit", "model_train.py", "--config", "baseline.json"],
            created_at=created.isoformat(timespec="milliseconds"),
        )
        record.reached(RunState.QUEUED, created)
        record.reached(RunState.RUNNING, created + timedelta(seconds=2))
        ended = created + timedelta(minutes=5)
        if number % 3:
            record.exit_code = 0
            record.reached(RunState.COMPLETED, ended)
        else:
            record.exit_code = 1
            record.failed("script_failed", "the script ended with exit code 1", ended)
        trouble = save_both(state_dir, store, record)
        if trouble is not None:
            raise trouble
