"""What every workspace promises, as tests. A provider subclasses `WorkspaceSuite` and makes the fixture.

The suite speaks through `Bench` alone: a workspace, the store that its runs use, and how to describe a run.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from amlctl.core.environment import EnvironmentSpec
from amlctl.core.events import null_sink
from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState
from amlctl.core.store_keys import outputs_tree
from amlctl.core.sync_plan import Layout
from amlctl.errors import Conflict, NotFound
from amlctl.runs.produced import Publisher, make_newest
from amlctl.runs.records import read_published, save_record
from amlctl.runs.tree import Place, restore_tree
from amlctl.snapshots.contents import read_content
from amlctl.snapshots.heads import read_head
from amlctl.snapshots.manifests import read_manifest
from amlctl.workspaces.contract import Workspace
from tests.support.context import Context
from tests.support.runs import make_record, wait_until, write_script

WAITS_FOR_A_SIGNAL = """
    import os, signal, sys, time
    def stop(number, frame):
        open(os.path.join(os.environ["AMLCTL_OUTPUTS_DIR"], "last.txt"), "w").write("kept")
        sys.exit(5)
    signal.signal(signal.SIGTERM, stop)
    print("ready")
    time.sleep(600)
"""

MEETS_THE_OTHER = """
    import os, socket, time
    rank, address = os.environ["RANK"], (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    deadline = time.monotonic() + 30
    if rank == "0":
        with socket.create_server(address) as server:
            server.settimeout(30)
            other = server.accept()[0]
    else:
        while True:
            try:
                other = socket.create_connection(address)
                break
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
    other.sendall(rank.encode())
    met = other.recv(1).decode()
    open(os.path.join(os.environ["AMLCTL_OUTPUTS_DIR"], rank + ".txt"), "w").write(met)
    print(rank, "met", met)
"""


@dataclass
class Bench(Context):
    """`fields` are what every record of this workspace needs (compute, environment …)."""

    workspace: Workspace = field(kw_only=True)
    fields: Mapping[str, Any] = field(default_factory=dict)

    def record(self, script: str, **fields: Any) -> RunRecord:
        return self.named_record("script.py", script, **fields)

    def named_record(self, name: str, script: str, **fields: Any) -> RunRecord:
        path = write_script(self.project, script, name)
        return make_record(
            self.project, self.store, path, **{"workspace": self.workspace.name, **self.fields, **fields}
        )

    def start(self, script: str, *, secrets: Mapping[str, str] | None = None, **fields: Any) -> str:
        record = self.record(script, **fields)
        save_record(self.store, record)
        self.workspace.start(record, secrets or {})
        return record.run

    def finished(self, run: str) -> RunRecord:
        """Follow the run to its end as a caller does."""

        def final() -> RunRecord | None:
            record = self.workspace.read(run)
            if record.is_final:
                return record
            self.workspace.wait(run, 1 << 60, 1.0)
            return None

        found: RunRecord = wait_until(final, what=f"the end of {run}")
        return found

    def log(self, run: str) -> bytes:
        """The whole log of an ended run."""
        data = b""
        while True:
            chunk = self.workspace.read_log(run, len(data))
            data += chunk.data
            assert chunk.cursor == len(data)
            if chunk.is_final:
                return data
            assert chunk.data, "an ended run's log must come to its end"

    def log_so_far(self, run: str) -> bytes:
        """What one read brings."""
        return self.workspace.read_log(run, 0).data

    def run(self, script: str, **fields: Any) -> RunRecord:
        """Start the script and wait for its end."""
        return self.finished(self.start(script, **fields))

    def wait_for_log(self, run: str, text: bytes) -> None:
        wait_until(lambda: text in self.log_so_far(run), what=f"{text!r} in the log of {run}")

    def outputs(self, run: str, to: Path) -> Path:
        restore_tree(self.store, outputs_tree(run), Place(to))
        return to


def run_while_a_mirror_moves(bench: Bench, folder: Path, written: str) -> RunRecord:
    """A run writes the file `theirs` of the mirror `working`, and `ours`; before it ends, `theirs` is synced again."""

    def synced(text: str, base: str | None) -> str:
        (folder / "source").mkdir(exist_ok=True)
        (folder / "source/theirs").write_text(text)
        found = Publisher(bench.store, folder / "source", "working", base_key=base, layout=Layout("mirror")).publish()
        make_newest(bench.store, "working", found.manifest_key, base)
        return found.manifest_key

    before = synced("old", None)
    run = bench.start(
        """
        import os, time
        root = os.environ["AMLCTL_DATA_BLOBS_DIR"] + "/working"
        os.makedirs(root)
        for name in ("theirs", "ours"):
            open(f"{root}/{name}", "w").write(os.environ["WRITTEN"])
        print("written")
        limit = time.monotonic() + 60
        while not os.path.exists(os.environ["GO"]) and time.monotonic() < limit:
            time.sleep(0.02)
        """,
        produces=["working"],
        heads={"working": before},
        variables={"GO": str(folder / "go"), "WRITTEN": written},
    )
    wait_until(lambda: b"written" in bench.workspace.read_log(run, 0).data, what="the script")
    synced("newer", before)
    (folder / "go").touch()
    return bench.finished(run)


def mirrored(bench: Bench) -> dict[str, bytes]:
    """What HEAD of the mirror `working` names; a damaged file raises IntegrityError."""
    head = read_head(bench.store, "working")
    assert head is not None
    manifest = read_manifest(bench.store, head.manifest_key)
    return {entry.path: read_content(bench.store, manifest, entry) for entry in manifest.entries}


class WorkspaceSuite(ABC):
    """Each test begins with a fresh workspace."""

    @pytest.fixture
    @abstractmethod
    def bench(self, tmp_path: Path) -> Bench:
        """An empty project with a store and a workspace that runs scripts with this interpreter's packages."""

    def test_a_script_runs(self, bench: Bench, tmp_path: Path) -> None:
        record = bench.run(
            """
            import os
            print("one")
            print("two")
            open(os.path.join(os.environ["AMLCTL_OUTPUTS_DIR"], "model.bin"), "wb").write(bytes(1000))
            """
        )
        assert (record.status, record.exit_code, "processors" in record.resources) == ("Completed", 0, True)
        assert bench.log(record.run).splitlines()[-2:] == [b"one", b"two"]
        assert (bench.outputs(record.run, tmp_path / "o") / "model.bin").read_bytes() == bytes(1000)
        assert list(record.times.values()) == sorted(record.times.values())
        assert list(record.times)[-1] == "Completed"
        assert {"Running"} <= set(record.times) <= {state.value for state in RunState}

    def test_the_script_finds_its_places_as_azure_names_them(self, bench: Bench) -> None:
        raw = bench.project.data_blobs_dir / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        (raw / "a.txt").write_text("of the dataset")
        published = Publisher(bench.store, raw, "raw/64x64").publish()
        record = bench.run(
            """
            import os
            print(open(os.environ["AZURE_ML_INPUT_raw_64x64"] + "/a.txt").read())
            assert os.environ["AZURE_ML_OUTPUT_default"] == os.environ["AMLCTL_OUTPUTS_DIR"]
            print(os.environ["DATASET_MOUNT_CACHE_SIZE"], os.environ.get("TOKEN"))
            """,
            datasets={"raw/64x64": published.snapshot},
            manifests={"raw/64x64": published.manifest_key},
            variables={"DATASET_MOUNT_CACHE_SIZE": "1 GB"},
        )
        assert record.status == "Completed", bench.log(record.run)
        assert bench.log(record.run).splitlines()[-2:] == [b"of the dataset", b"1 GB None"]

    def test_the_rank_that_failed_first_is_named_with_its_log(self, bench: Bench) -> None:
        script = "import os, sys, time; time.sleep(600) if os.environ['RANK'] == '0' else sys.exit(7)"
        record = bench.run(script, distribution="pytorch", processes=2)
        assert (record.status, record.exit_code) == ("Failed", 7)
        assert record.error is not None
        assert "the script of rank 1 ended with exit code 7" in record.error["message"]
        assert "std_log_process_1.txt" in record.error["hint"]

    def test_exit_code_and_reason_of_a_failure(self, bench: Bench) -> None:
        record = bench.run("import sys; print('sorry'); sys.exit(3)")
        assert (record.status, record.exit_code) == ("Failed", 3)
        assert record.error is not None
        assert "exit code 3" in record.error["message"]

    def test_killed_script_keeps_its_outputs(self, bench: Bench, tmp_path: Path) -> None:
        record = bench.run(
            """
            import os, signal
            open(os.path.join(os.environ["AMLCTL_OUTPUTS_DIR"], "half.txt"), "w").write("half")
            os.kill(os.getpid(), signal.SIGKILL)
            """
        )
        assert (record.status, record.exit_code) == ("Failed", 137)
        assert record.error is not None
        assert "SIGKILL" in record.error["message"]
        assert (bench.outputs(record.run, tmp_path / "o") / "half.txt").read_text() == "half"

    def test_arguments_config_and_variables_arrive_and_no_record_has_a_secret(self, bench: Bench) -> None:
        record = bench.run(
            """
            import json, os, sys
            config = json.load(open(sys.argv[2]))
            print(json.dumps([sys.argv[1], config, sys.argv[3:], os.environ["GREETING"], os.environ["TOKEN"]]))
            """,
            config="pipeline/configs/base.json",
            config_content={"lr": 0.1},
            arguments=["--name", "a b"],
            variables={"GREETING": "hé", "TOKEN": None},
            secrets={"TOKEN": "hidden-value"},
        )
        assert record.status == "Completed"
        reported = json.loads(bench.log(record.run).splitlines()[-1])
        assert reported == ["--config", {"lr": 0.1}, ["--name", "a b"], "hé", "hidden-value"]
        assert b"hidden-value" not in bench.store.get(f"runs/{record.run}/record.json")
        assert "hidden-value" not in json.dumps(record.to_json())

    def test_datasets_go_in_and_out(self, bench: Bench, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.mkdir()
        (source / "in.txt").write_text("raw")
        published = Publisher(bench.store, source, "raw/a").publish()
        record = bench.run(
            """
            import os
            root = os.environ["AMLCTL_DATA_BLOBS_DIR"]
            os.makedirs(root + "/working")
            open(root + "/working/out.txt", "w").write(open(root + "/raw/a/in.txt").read().upper())
            """,
            datasets={"raw/a": published.snapshot},
            manifests={"raw/a": published.manifest_key},
            produces=["working"],
        )
        assert record.status == "Completed", record.error
        head = read_head(bench.store, "working")
        assert head is not None
        assert record.published == {"working": head.snapshot}

    def test_a_mirror_that_moved_during_the_run_keeps_its_newer_files(self, bench: Bench, tmp_path: Path) -> None:
        record = run_while_a_mirror_moves(bench, tmp_path, "old")
        assert (record.status, record.error) == ("Completed", None)
        assert mirrored(bench) == {"ours": b"old", "theirs": b"newer"}
        # What a later gc goes by, should this snapshot not be the newest one any more.
        assert read_published(bench.store, record.run).keys() == {"working"}

    def test_promised_dataset_that_is_not_there_fails_the_run(self, bench: Bench) -> None:
        record = bench.run("pass", produces=["working/new"])
        assert record.status == "Failed"
        assert record.error is not None
        assert "working/new" in record.error["message"]
        assert read_head(bench.store, "working/new") is None

    def test_missing_dataset_fails_the_run_with_its_name(self, bench: Bench) -> None:
        record = bench.run("pass", datasets={"raw/a": "0" * 32}, manifests={"raw/a": "datasets/raw/a/gone"})
        assert record.status == "Failed"
        assert record.error is not None
        assert "raw/a" in record.error["message"]
        assert b"Traceback" not in bench.log(record.run)

    def test_log_is_read_by_offset_while_it_is_written(self, bench: Bench) -> None:
        run = bench.start(
            """
            import sys, time
            for number in range(300):
                sys.stdout.write(f"line {number} \\u00e9\\r" if number % 3 else f"line {number}\\n")
                sys.stdout.flush()
                time.sleep(0.001)
            """,
            variables={"PYTHONIOENCODING": "utf-8"},
        )
        data = b""

        def is_at_end() -> bool:
            nonlocal data
            chunk = bench.workspace.read_log(run, len(data))
            data += chunk.data
            assert chunk.cursor == len(data)
            if not chunk.data and not chunk.is_final:
                bench.workspace.wait(run, len(data), 0.2)
            return chunk.is_final

        wait_until(is_at_end, what="the end of the log")
        expected = "".join(f"line {n} é\r" if n % 3 else f"line {n}\n" for n in range(300)).encode()
        assert data.endswith(expected)
        assert bench.log(run) == data
        again = bench.workspace.read_log(run, 10)
        assert data[10:].startswith(again.data)

    def test_a_run_is_canceled_with_its_outputs_kept_and_then_deleted(self, bench: Bench, tmp_path: Path) -> None:
        run = bench.start(WAITS_FOR_A_SIGNAL)
        bench.wait_for_log(run, b"ready")
        bench.workspace.wait(run, 0, 3600.0)  # the log is longer than what is known of it
        with pytest.raises(Conflict):
            bench.workspace.delete(run)
        bench.workspace.cancel(run)
        assert bench.workspace.read(run).status in ("CancelRequested", "Finalizing", "Canceled")
        record = bench.finished(run)
        assert record.status == "Canceled"
        assert "CancelRequested" in record.times
        assert (bench.outputs(run, tmp_path / "o") / "last.txt").read_text() == "kept"
        bench.workspace.wait(run, 0, 3600.0)  # it has ended
        bench.workspace.delete(run)
        with pytest.raises(NotFound):
            bench.workspace.read(run)
        assert bench.workspace.list_runs() == []
        assert list(bench.store.list(f"runs/{run}/")) == []

    def test_an_ended_run_is_whole_in_the_store_and_a_cancel_changes_nothing(self, bench: Bench) -> None:
        record = bench.run("print('10%', end='\\r'); print('100%')")
        assert json.loads(bench.store.get(f"runs/{record.run}/record.json")) == record.to_json()
        assert bench.store.get(f"runs/{record.run}/logs/std_log.txt").splitlines()[-1] == b"100%"
        bench.workspace.cancel(record.run)
        assert bench.workspace.read(record.run) == record
        assert bench.workspace.log_names(record.run)
        with pytest.raises(NotFound):
            bench.workspace.read_log(record.run, 0, name="no-such-log.txt")

    def test_timeout_ends_the_run_with_the_reason(self, bench: Bench, tmp_path: Path) -> None:
        run = bench.start(WAITS_FOR_A_SIGNAL, timeout_s=2.0)
        record = bench.finished(run)
        assert record.status == "Failed"
        assert record.error is not None
        assert record.error["kind"] == "timeout"

    def test_two_processes_meet_and_have_a_log_each(self, bench: Bench, tmp_path: Path) -> None:
        record = bench.run(MEETS_THE_OTHER, distribution="pytorch", processes=2)
        assert (record.status, record.exit_code) == ("Completed", 0)
        names = bench.workspace.log_names(record.run)
        logs = [bench.workspace.read_log(record.run, 0, name=name).data.splitlines() for name in names]
        assert [lines[-1] for lines in logs[:2]] == [b"0 met 1", b"1 met 0"]  # and the log of a build, perhaps
        assert bench.log(record.run).splitlines()[-1] == b"0 met 1"
        kept = bench.outputs(record.run, tmp_path / "o")
        assert sorted(path.name for path in kept.iterdir()) == ["0.txt", "1.txt"]

    def test_start_with_the_same_id_starts_nothing_twice(self, bench: Bench) -> None:
        record = bench.record("print('once')")
        save_record(bench.store, record)
        bench.workspace.start(record, {})
        bench.workspace.start(record, {})
        ended = bench.finished(record.run)
        bench.workspace.start(record, {})
        assert bench.workspace.read(record.run) == ended
        assert bench.log(record.run).count(b"once") == 1

    def test_runs_are_listed_newest_first(self, bench: Bench) -> None:
        runs = [bench.start("pass") for _ in range(2)]
        for run in runs:
            bench.finished(run)
        assert [record.run for record in bench.workspace.list_runs()] == runs[::-1]

    @pytest.mark.parametrize("run", ["no-such-run", "../elsewhere", "", "a/b"])
    def test_unknown_run(self, bench: Bench, run: str) -> None:
        for ask in (bench.workspace.read, bench.workspace.log_names, bench.workspace.cancel, bench.workspace.delete):
            with pytest.raises(NotFound):
                ask(run)
        with pytest.raises(NotFound):
            bench.workspace.read_log(run, 0)

    def test_environment_of_the_present_interpreter_is_ready(self, bench: Bench) -> None:
        spec = EnvironmentSpec(is_current=True)
        assert bench.workspace.environment(spec).is_ready
        assert bench.workspace.prepare_environment(spec, null_sink).id == "current"
