"""The local workspace keeps the promises of every workspace, and a few of its own."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from amlctl.core.settings import WorkspaceSettings
from amlctl.core.sync_plan import Layout
from amlctl.localfs.atomic import write_json
from amlctl.localfs.folders import remove_tree
from amlctl.runs.known import note_made
from amlctl.runs.produced import Publisher
from amlctl.runs.records import read_published, save_both, save_record
from amlctl.snapshots.contents import read_content
from amlctl.snapshots.manifests import read_manifest
from amlctl.stores.azure_blob.store import AzureBlobStore
from amlctl.stores.contract import Store
from amlctl.stores.directory import DirectoryStore
from amlctl.workspaces.contract import Workspace
from amlctl.workspaces.local.node_files import node_store
from amlctl.workspaces.local.run_paths import RunPaths
from amlctl.workspaces.local.starting import LocalTiming
from amlctl.workspaces.local.workspace import LocalWorkspace
from tests.contract.workspace import WAITS_FOR_A_SIGNAL, Bench, WorkspaceSuite, mirrored, run_while_a_mirror_moves
from tests.support.azurite import Azurite
from tests.support.runs import make_project, run_record, wait_until

QUICK = LocalTiming(save_interval_s=0.2, grace_s=5.0, poll_s=0.02)


def local_bench(
    root: Path,
    *,
    slots: int = 2,
    variables: dict[str, str] | None = None,
    store: Store | None = None,
    url: str | None = None,
) -> Bench:
    """`url` is the store's as the settings have it, perhaps with a token."""
    project = make_project(root / "project")
    project.compute_dir.mkdir()
    (project.compute_dir / "local.yaml").write_text(f"type: local\nname: local\nslots: {slots}\n")
    store = store or DirectoryStore(root / "store")
    settings = WorkspaceSettings("local", compute="local", store=url or store.url)
    environment = {**os.environ, **(variables or {})}
    workspace = LocalWorkspace(project, settings, store, variables=environment, timing=QUICK)
    return Bench(project, store, workspace=workspace, fields={"compute": "local", "environment": "current"})


class TestLocalWorkspace(WorkspaceSuite):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> Bench:
        return local_bench(tmp_path)


class TestLocalWorkspaceWithBlobs(WorkspaceSuite):
    """The store is a container: what a run reads is brought to this machine, what it leaves goes back."""

    @pytest.fixture
    def bench(self, tmp_path: Path, azurite: Azurite) -> Iterator[Bench]:
        variables = {"AZURE_STORAGE_KEY": azurite.key}
        store = AzureBlobStore(f"{azurite.url}/{azurite.new_container()}", variables)
        store.put("made", b"")
        yield local_bench(tmp_path, variables=variables, store=store)
        store.close()

    def test_what_is_cached_is_not_downloaded_again(self, bench: Bench) -> None:
        data = bench.project.dataset_path("working/x")
        data.mkdir(parents=True)
        (data / "small").write_bytes(b"small" * 1000)
        (data / "large").write_bytes(b"large" * 500_000)
        published = Publisher(bench.store, data, "working/x", layout=Layout("pack")).publish()
        remove_tree(data)  # else nothing needs to be downloaded
        fields = {"datasets": {"working/x": published.snapshot}, "manifests": {"working/x": published.manifest_key}}
        script = "import os; print(sorted(os.listdir(os.environ['AMLCTL_DATA_BLOBS_DIR'] + '/working/x')))"
        logs = []
        for _ in range(2):
            run = bench.start(script, **fields)
            assert bench.finished(run).status == "Completed"
            logs.append(bench.log(run).decode())
        assert all("['large', 'small']" in log for log in logs)
        assert "downloaded working/x: 2.5 MB" in logs[0]
        assert "downloading" not in logs[1]
        node = node_store(bench.store, bench.project.state_dir)
        wait_until(lambda: not list(node.list("runs/")))  # removed after the final record


@pytest.mark.parametrize("is_blob", [False, True])
def test_a_file_of_a_mirror_that_both_have_changed_stays_theirs(
    tmp_path: Path, azurite: Azurite, is_blob: bool
) -> None:
    variables = {"AZURE_STORAGE_KEY": azurite.key}
    store = AzureBlobStore(f"{azurite.url}/{azurite.new_container()}", variables) if is_blob else None
    if store is not None:
        store.put("made", b"")
    bench = local_bench(tmp_path, variables=variables, store=store)
    record = run_while_a_mirror_moves(bench, tmp_path, "by the run")
    assert record.error is not None
    assert "is kept, but is not the latest" in record.error["message"]
    assert mirrored(bench) == {"theirs": b"newer"}
    # The other one is whole, too: it can be pulled by its id.
    [place] = read_published(bench.store, record.run).values()
    ours = read_manifest(bench.store, place["manifest_key"])
    assert {read_content(bench.store, ours, entry) for entry in ours.entries} == {b"by the run"}
    if store is not None:
        store.close()


def test_an_output_that_no_blob_can_be_called_does_not_cost_the_others(tmp_path: Path, azurite: Azurite) -> None:
    variables = {"AZURE_STORAGE_KEY": azurite.key}
    store = AzureBlobStore(f"{azurite.url}/{azurite.new_container()}", variables)
    bench = local_bench(tmp_path, variables=variables, store=store)
    script = (
        "import os; [open(os.path.join(os.environ['AMLCTL_OUTPUTS_DIR'], n), 'w').write('1') for n in ('a', 'b\\nc')]"
    )
    run = bench.start(script)
    assert bench.finished(run).status == "Completed"
    assert store.get(f"runs/{run}/outputs/a") == b"1"
    log = bench.log(run).decode()
    assert "cannot be the name of a blob" in log
    folder = log.partition("only in ")[2].partition("\n")[0]
    assert (Path(folder) / "b\nc").read_text() == "1"
    store.close()


def test_a_token_of_the_url_does_not_reach_the_script(tmp_path: Path, azurite: Azurite) -> None:
    container = azurite.new_container()
    with_key = AzureBlobStore(f"{azurite.url}/{container}", {"AZURE_STORAGE_KEY": azurite.key})
    with_key.put("made", b"")
    with_key.close()
    url = f"{azurite.url}/{container}?{azurite.sas(container)}"
    store = AzureBlobStore(url, {})
    bench = local_bench(tmp_path, store=store, url=url)
    run = bench.start("import os; print([n for n, v in os.environ.items() if 'sig=' in v])")
    assert bench.finished(run).status == "Completed"
    assert b"[]\n" in bench.log(run)
    store.close()


def test_satisfies_the_protocol(tmp_path: Path) -> None:
    workspace: Workspace = local_bench(tmp_path).workspace
    assert workspace.name == "local"


def test_more_runs_than_slots_wait_in_order(tmp_path: Path) -> None:
    bench = local_bench(tmp_path, slots=1)
    order = tmp_path / "order"
    script = f"import os; open({str(order)!r}, 'a').write(os.environ['AMLCTL_RUN_ID'] + chr(10))"
    first = bench.start(WAITS_FOR_A_SIGNAL)
    bench.wait_for_log(first, b"ready")
    waiting = [bench.start(script) for _ in range(4)]
    assert [bench.workspace.read(run).status for run in waiting] == ["Queued"] * 4
    bench.workspace.cancel(first)
    for run in waiting:
        assert bench.finished(run).status == "Completed"
    assert order.read_text().split() == waiting


def test_cancel_in_the_queue(tmp_path: Path) -> None:
    bench = local_bench(tmp_path, slots=1)
    first = bench.start(WAITS_FOR_A_SIGNAL)
    bench.wait_for_log(first, b"ready")
    queued, last = bench.start("print('never')"), bench.start("print('after')")
    bench.workspace.cancel(queued)
    record = bench.finished(queued)
    assert (record.status, record.exit_code) == ("Canceled", None)
    assert record.error == {"kind": "canceled", "message": "canceled while it was Queued"}
    assert b"never" not in bench.log(queued)
    bench.workspace.cancel(first)
    assert bench.finished(last).status == "Completed"


def test_two_slots_work_at_once(tmp_path: Path) -> None:
    bench = local_bench(tmp_path, slots=2)
    runs = [bench.start(WAITS_FOR_A_SIGNAL) for _ in range(2)]
    for run in runs:
        bench.wait_for_log(run, b"ready")
    for run in runs:
        bench.workspace.cancel(run)
        assert bench.finished(run).status == "Canceled"


def test_a_run_continues_without_its_caller_and_leaves_no_zombie(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    run = bench.start("print('done')")
    bench.finished(run)
    supervisor = json.loads(RunPaths(bench.project.state_dir, run).supervisor.read_text())
    assert supervisor["process"] != os.getpid()
    with pytest.raises(ChildProcessError):
        os.waitpid(supervisor["process"], os.WNOHANG)


def test_background_children_end_with_the_script(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    record = bench.run(
        """
        import subprocess, sys
        sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
        print(subprocess.Popen(sleeper).pid, subprocess.Popen(sleeper, process_group=0).pid)
        """
    )
    pids, reported = bench.log(record.run).decode().splitlines()
    assert not any(is_running(int(pid)) for pid in pids.split())
    assert reported.startswith("[amlctl] ended 2 processes that the script left running: ")


def test_the_container_is_gone_and_the_log_stays(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    record = bench.run("print('10%', end='\\r'); print('100%')")
    places = RunPaths(bench.project.state_dir, record.run)
    wait_until(lambda: not places.container.exists(), what="the container's removal")
    assert bench.log(record.run) == b"10%\r100%\n"
    places.log.unlink()
    assert bench.log(record.run) == b"100%\n"


def test_one_gpu_a_slot(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    tool = tools / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 0\necho 1\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    bench = local_bench(tmp_path, slots=2, variables={"PATH": f"{tools}:{os.environ['PATH']}"})
    script = "import os; print('gpu', os.environ['CUDA_VISIBLE_DEVICES'])\n" + WAITS_FOR_A_SIGNAL.replace(
        "\n    ", "\n"
    )
    runs = [bench.start(script) for _ in range(2)]
    for run in runs:
        bench.wait_for_log(run, b"ready")
        bench.workspace.cancel(run)
        bench.finished(run)
    assert sorted(bench.log(run).splitlines()[0] for run in runs) == [b"gpu 0", b"gpu 1"]


def test_a_gpu_driver_that_hangs_keeps_no_run_from_its_script(tmp_path: Path) -> None:
    tool = tmp_path / "tools/nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/asked\nexec sleep 600\n")
    tool.chmod(0o755)
    bench = local_bench(tmp_path, variables={"PATH": f"{tool.parent}:{os.environ['PATH']}"})
    record = bench.run("import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'))")
    assert record.status == "Completed"
    assert bench.log(record.run) == b"[amlctl] nvidia-smi does not answer: the GPUs are not shared out\nNone\n"
    assert not is_running(int((tmp_path / "asked").read_text()))


def test_an_answer_of_a_gpu_driver_that_is_not_text_does_not_fail_the_run(tmp_path: Path) -> None:
    tool = tmp_path / "tools/nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nprintf '0\\n\\377\\n'\n")
    tool.chmod(0o755)
    bench = local_bench(tmp_path, slots=2, variables={"PATH": f"{tool.parent}:{os.environ['PATH']}"})
    record = bench.run("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])")
    assert (record.status, bench.log(record.run)) == ("Completed", b"0\n")


def test_run_that_was_recorded_but_never_started_can_be_canceled(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    record = bench.record("print('never')")
    write_json(RunPaths(bench.project.state_dir, record.run).record, record.to_json())
    bench.workspace.cancel(record.run)
    bench.workspace.start(record, {})
    assert bench.workspace.read(record.run).status == "Canceled"
    bench.workspace.delete(record.run)


def test_a_run_whose_submit_was_killed_before_it_was_handed_over_ends(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    now = datetime.now(UTC)
    ages = {"new": now, "old": now - timedelta(hours=1)}
    runs = {name: bench.record("print('never')", created_at=at.isoformat()) for name, at in ages.items()}
    for record in runs.values():
        save_record(bench.store, record)
    there = LocalWorkspace(make_project(tmp_path / "clone"), WorkspaceSettings("local"), bench.store, timing=QUICK)
    assert there.read(runs["old"].run).status == "NotStarted"  # which is not its business
    for record in runs.values():
        note_made(bench.project.ensure_state_dir(), record.run)
    assert bench.workspace.read(runs["new"].run).status == "NotStarted"
    ended = bench.workspace.read(runs["old"].run)
    assert (ended.status, ended.error and ended.error["kind"]) == ("Failed", "lost")
    assert there.read(ended.run) == ended
    bench.workspace.start(runs["old"], {})  # a command that was only slow
    assert bench.workspace.read(ended.run) == ended
    bench.workspace.delete(ended.run)


def test_a_reader_while_a_run_is_started_does_not_take_its_supervisor_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a sweep, whose runs are recorded before they are started."""
    bench = local_bench(tmp_path)
    record = bench.record("print('ran')")
    paths = RunPaths(bench.project.state_dir, record.run)
    save_both(paths.state_dir, bench.store, record)
    seen: list[tuple[str, bool]] = []
    real = fcntl.flock

    def flock(descriptor: int, operation: int) -> None:
        monkeypatch.undo()
        seen.append((bench.workspace.read(record.run).status, paths.folder.exists()))
        real(descriptor, operation)

    monkeypatch.setattr("amlctl.workspaces.local.run_paths.fcntl.flock", flock)
    bench.workspace.start(record, {})
    assert seen == [("NotStarted", False)]  # a kill here leaves no folder that keeps it from being started
    assert bench.finished(record.run).status == "Completed"


def test_run_of_another_clone_is_read_from_the_store(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    record = bench.run("print('there')")
    project = make_project(tmp_path / "clone")
    clone = LocalWorkspace(project, WorkspaceSettings("local"), bench.store, timing=QUICK)
    assert clone.read(record.run) == record
    assert clone.read_log(record.run, 0).data == b"there\n"


def test_listing_looks_at_small_files_only(tmp_path: Path) -> None:
    bench = local_bench(tmp_path)
    now = datetime.now(UTC)
    for number in range(1000):
        record = run_record(f"run-{number:04}", "pipeline/a.py", status="Completed", workspace="local")
        record.created_at = (now + timedelta(seconds=number)).isoformat()
        write_json(RunPaths(bench.project.state_dir, record.run).record, record.to_json())
    started = time.monotonic()
    runs = bench.workspace.list_runs()
    seconds = time.monotonic() - started
    assert [record.run for record in runs[:2]] == ["run-0999", "run-0998"]
    assert len(runs) == 1000
    # Far above what it takes, so that only a change of kind (a store read, a lock, a process each) fails.
    assert seconds < 5


def is_running(pid: int) -> bool:
    fields = Path(f"/proc/{pid}/stat")
    try:
        os.kill(pid, 0)
        return not fields.exists() or fields.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (ProcessLookupError, FileNotFoundError):  # it may end between two looks
        return False
