"""A damaged run record is one damaged record: named, taken from the store again, and never made into something else."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from amlctl.core.events import Event, Warned
from amlctl.core.run import RunRecord
from amlctl.core.run_id import newest_first
from amlctl.core.run_state import RunState
from amlctl.core.settings import WorkspaceSettings
from amlctl.core.store_keys import published_key, record_key
from amlctl.errors import Conflict, IntegrityError
from amlctl.operations.find_run import resolve_run
from amlctl.operations.logs import FollowOptions
from amlctl.operations.runs import RunAt, delete, list_runs
from amlctl.operations.submit.submit import submit
from amlctl.runs.known import note_made, read_order
from amlctl.runs.records import load_local_record, load_record, read_published, save_local_record
from amlctl.workspaces.local.run_paths import RunPaths
from amlctl.workspaces.local.workspace import LocalWorkspace
from tests.support.bench import Bench, copy_into, make_bench, never_interrupted, wait_until_tidied
from tests.support.logs import read_log_text
from tests.support.runs import run_record, wait_until
from tests.support.trees import write_tree


def _record_file(bench: Bench, run: str) -> Path:
    return RunPaths(bench.project.state_dir, run).record


def _damage(file: Path, old: bytes = b'"Completed"', new: bytes = b'"Complfted"') -> None:
    data = file.read_bytes()
    assert old in data
    file.write_bytes(data.replace(old, new, 1))


def _telling(bench: Bench) -> tuple[LocalWorkspace, list[str]]:
    """The workspace as a new command opens it, and the warnings that it gives."""
    reported: list[str] = []

    def sink(event: Event) -> None:
        if isinstance(event, Warned):
            reported.append(event.message)

    settings = WorkspaceSettings("local", compute="local", store=bench.store.url)
    return LocalWorkspace(bench.project, settings, bench.store, sink=sink), reported


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    bench = make_bench(tmp_path_factory.mktemp("made") / "a project")
    bench.script("print('done')")
    older, newer = (bench.submit("train.py").record.run for _ in range(2))
    wait_until_tidied(bench)
    return bench.project.root, older, newer


@pytest.fixture
def two(bench: Bench, made: tuple[Path, str, str]) -> tuple[Bench, str, str]:
    """Two runs that have ended, the older first."""
    folder, older, newer = made
    copy_into(bench, folder)
    return bench, older, newer


def test_it_is_named_once_and_taken_from_the_store(two: tuple[Bench, str, str]) -> None:
    bench, older, newer = two
    good = _record_file(bench, older).read_bytes()
    _damage(_record_file(bench, older))
    workspace, reported = _telling(bench)
    assert [record.run for record in workspace.list_runs()] == [newer, older]
    assert len(reported) == 1
    assert older in reported[0]
    assert "status" in reported[0]
    assert _record_file(bench, older).read_bytes() == good
    assert read_log_text(workspace, resolve_run(workspace, "@2")) == "done\n"
    assert len(reported) == 1


def test_the_store_is_not_written(two: tuple[Bench, str, str]) -> None:
    bench, older, _ = two
    before = bench.store.get(record_key(older))
    for old, new in ((b'"status"', b'"stAtus"'), (b'"times"', b'"tImes"'), (b'"run"', b'"rUn"')):
        _damage(_record_file(bench, older), old, new)
        workspace, reported = _telling(bench)
        assert workspace.read(older).status == "Completed"
        assert bench.store.get(record_key(older)) == before
        assert reported


def test_one_that_is_lost_on_both_sides_is_left_out_and_can_be_deleted(two: tuple[Bench, str, str]) -> None:
    bench, older, newer = two
    _damage(_record_file(bench, older))
    bench.store.put(record_key(older), b"{", replace=True)
    workspace, reported = _telling(bench)
    assert [record.run for record in workspace.list_runs()] == [newer]
    assert resolve_run(workspace, "@last") == newer
    assert reported
    assert [message for message in reported if older not in message] == []
    with pytest.raises(IntegrityError, match=older) as caught:
        workspace.read(older)
    assert caught.value.hint == f"amlctl runs delete {older}"
    delete([RunAt(older, bench)])
    assert not list(bench.store.list(f"runs/{older}/"))
    assert not _record_file(bench, older).exists()
    assert workspace.read(newer).status == "Completed"


def test_a_folder_in_its_place_is_damage_too(two: tuple[Bench, str, str]) -> None:
    bench, older, newer = two
    file = _record_file(bench, older)
    file.unlink()
    file.mkdir()
    workspace, reported = _telling(bench)
    assert [record.run for record in workspace.list_runs()] == [newer, older]
    assert "is a folder" in reported[0]


def test_the_record_of_another_run_is_not_this_ones(two: tuple[Bench, str, str]) -> None:
    bench, older, newer = two
    _record_file(bench, older).write_bytes(_record_file(bench, newer).read_bytes())
    workspace, reported = _telling(bench)
    assert workspace.read(older).run == older
    assert "another run" in reported[0]
    _record_file(bench, older).write_bytes(_record_file(bench, newer).read_bytes())
    delete([RunAt(older, bench)])
    assert workspace.read(newer).status == "Completed"
    assert bench.store.info(record_key(newer)) is not None


def test_a_damaged_copy_of_a_run_that_works_is_left_to_its_supervisor(bench: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    bench.script(f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)\nprint('over')")
    run = bench.submit("train.py", is_detached=True).record.run
    stored = record_key(run)  # written after the one of this machine
    wait_until(lambda: b'"Running"' in bench.store.get(stored), what="the script")
    _damage(_record_file(bench, run), b'"Running"', b'"Runninh"')
    workspace, reported = _telling(bench)
    assert workspace.read(run).status == "Running"
    assert reported
    with pytest.raises(Conflict):
        delete([RunAt(run, bench)])
    gate.touch()
    wait_until(lambda: workspace.read(run).is_final, what="the end")
    assert workspace.read(run).status == "Completed"


def test_an_end_that_the_store_knows_is_never_another_one(two: tuple[Bench, str, str]) -> None:
    """The supervisor died between the two copies of the final record."""
    bench, older, _ = two
    record = load_local_record(bench.project.state_dir, older)
    assert record is not None
    record.status, record.exit_code = RunState.RUNNING, None
    save_local_record(bench.project.state_dir, record)
    container = RunPaths(bench.project.state_dir, older).container
    write_tree(container / "outputs", {"a": b"1"})
    assert bench.workspace.read(older).status == "Completed"
    assert not container.exists()
    stored = load_record(bench.store, older)
    assert stored is not None
    assert stored.status == "Completed"


def test_a_damaged_list_of_what_was_produced_is_not_an_empty_one(bench: Bench) -> None:
    assert read_published(bench.store, "r1") == {}
    for data in (
        b"{",
        b'{"working/x": 5}',
        b'{"../x": {"snapshot": "0", "manifest_key": "datasets/x"}}',
        b"[" * 99_999,
    ):
        bench.store.put(published_key("r1"), data, replace=True)
        with pytest.raises(IntegrityError, match="r1"):
            read_published(bench.store, "r1")


def test_a_record_without_end_is_not_read_to_its_end(bench: Bench) -> None:
    bench.store.put(record_key("r1"), b" " * (33 << 20), replace=True)
    with pytest.raises(IntegrityError, match="32 MiB"):
        load_record(bench.store, "r1")


# --- the order of making ---


def _submitted(bench: Bench, name: str, at: datetime) -> str:
    return submit(
        bench,
        bench.request("train.py", name=name),
        following=FollowOptions(never_interrupted),
        clock=lambda: at,
    ).record.run


def test_last_is_what_was_submitted_last_whatever_the_clock_said(bench: Bench) -> None:
    bench.script("print('done')")
    now = datetime.now(UTC)
    runs = [_submitted(bench, name, now + timedelta(hours=hours)) for name, hours in (("a", 0), ("b", 9), ("c", 1))]
    assert [resolve_run(bench.workspace, f"@{n}") for n in (1, 2, 3)] == runs[::-1]

    def listed() -> list[str]:
        return [record.run for record in list_runs(bench)]

    assert listed() == runs[::-1]
    (bench.project.state_dir / "run-order").unlink()
    assert listed() == [runs[1], runs[2], runs[0]], "times are what is left"


def _made(run: str, minute: int) -> RunRecord:
    return run_record(run, "x.py", created_at=f"2026-01-01T12:{minute:02}:00.000+00:00")


def test_runs_of_others_stand_among_ours_by_their_times() -> None:
    ours = [_made("first", 10), _made("ahead", 50), _made("last", 20)]
    others = [_made("x", 5), _made("y", 15), _made("z", 30)]
    order = newest_first([*others, *ours], ["first", "ahead", "last"])
    assert [record.run for record in order] == ["z", "last", "ahead", "y", "first", "x"]
    without = [record.run for record in newest_first([*ours, *others], [])]
    assert without == ["ahead", "z", "last", "y", "first", "x"]


def test_times_of_other_zones_are_the_same_moments() -> None:
    early = run_record("early", "x.py", created_at="2026-01-01T12:00:00+05:00")
    late = run_record("late", "x.py", created_at="2026-01-01T08:00:00+00:00")
    assert [record.run for record in newest_first([early, late], [])] == ["late", "early"]


def test_the_order_survives_garbage_and_stays_small(tmp_path: Path) -> None:
    note_made(tmp_path, "one")
    with (tmp_path / "run-order").open("ab") as file:
        file.write(b"hal")  # a writer that was killed
    note_made(tmp_path, "two")
    assert [run for run in read_order(tmp_path) if run != "hal"] == ["one", "two"]
    with (tmp_path / "run-order").open("ab") as file:
        file.write(b"\xff\x00../x\n" + b"run-0123456789\n" * 100_000)
    note_made(tmp_path, "three")
    assert (tmp_path / "run-order").stat().st_size < 1 << 20
    assert read_order(tmp_path)[-1] == "three"
    assert oct((tmp_path / "run-order").stat().st_mode & 0o777) == "0o600"


def test_a_pipe_or_a_link_to_itself_in_place_of_a_record_holds_nothing_up(two: tuple[Bench, str, str]) -> None:
    bench, older, newer = two
    pipe = _record_file(bench, "foreign-20260101-000000-0000")
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    loop = _record_file(bench, "foreign-20260101-000000-0001").parent
    loop.symlink_to(loop.name)
    workspace, _ = _telling(bench)
    assert [record.run for record in workspace.list_runs()] == [newer, older]
