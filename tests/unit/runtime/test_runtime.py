"""The runtime as a real process, started as a node starts it: the shipped package, a store folder, a container."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from amlctl.core.job import RUNTIME_ARCHIVE
from amlctl.core.run import RunRecord
from amlctl.core.store_keys import (
    code_prefix,
    failure_key,
    outputs_index_key,
    outputs_prefix,
    published_key,
    record_key,
)
from amlctl.runs.produced import publish
from amlctl.runs.tree import read_index
from amlctl.runtime.ranks import NodeRank, node_rank
from amlctl.stores.directory import DirectoryStore
from amlctl.workspaces.local.node_files import make_container
from tests.support.runs import make_project, make_record, wait_until, write_script


class Node:
    """A fresh container for one record, and the runtime in it."""

    def __init__(self, tmp_path: Path) -> None:
        self.project = make_project(tmp_path / "project")
        self.store = DirectoryStore(tmp_path / "store")
        self.container = tmp_path / "container"
        self.runtime = self.container / RUNTIME_ARCHIVE
        self._store_folder = tmp_path / "store"

    def make_container(self, record: RunRecord) -> None:
        """As on Azure ML, where the runtime stays in its archive."""
        make_container(self.store, record.spec.code, self.container, self._store_folder.parent / "runtimes")
        self.runtime.write_bytes(self.store.get(code_prefix(record.spec.code) + RUNTIME_ARCHIVE))

    def record(self, script: str, **fields: Any) -> RunRecord:
        record = make_record(self.project, self.store, write_script(self.project, script), **fields)
        self.store.put(record_key(record.run), json.dumps(record.to_json()).encode(), replace=True)
        return record

    def start(
        self,
        record: RunRecord,
        *options: str,
        python: str = sys.executable,
        variables: dict[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        if not self.container.exists():
            self.make_container(record)
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(self.runtime),
            **(variables or {}),
        }
        command = [python, "-m", "amlctl.runtime", "--store", str(self._store_folder), "--run", record.run]
        return subprocess.Popen(
            [*command, "--container", str(self.container), *options],
            cwd=self.container,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, record: RunRecord, *options: str, **how: Any) -> tuple[int, str]:
        process = self.start(record, *options, **how)
        text, _ = process.communicate(timeout=60)
        return process.returncode, text

    def output(self, record: RunRecord, path: str) -> bytes:
        return self.store.get(outputs_prefix(record.run) + path)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_script_sees_its_place(node: Node) -> None:
    script = """
        import json, os, sys
        names = ("AMLCTL_PIPELINE_DIR", "AMLCTL_DATA_BLOBS_DIR", "AMLCTL_OUTPUTS_DIR", "AMLCTL_RUN_ID",
                 "AMLCTL_ATTEMPT", "PYTHONUNBUFFERED", "GREETING", "TOKEN", "PYTHONPATH")
        print(json.dumps({"argv": sys.argv[1:], "cwd": os.getcwd(), **{name: os.environ[name] for name in names}}))
    """
    record = node.record(script, arguments=["--epochs", "2", "a b"], variables={"GREETING": "hé", "TOKEN": None})
    code, text = node.run(record, variables={"TOKEN": "secret", "PYTHONPATH": f"{node.runtime}:/x"})
    assert code == 0
    seen = json.loads(text)
    container = str(node.container)
    assert seen == {
        "argv": ["--epochs", "2", "a b"],
        "cwd": container,
        "AMLCTL_PIPELINE_DIR": f"{container}/pipeline",
        "AMLCTL_DATA_BLOBS_DIR": f"{container}/data_blobs",
        "AMLCTL_OUTPUTS_DIR": f"{container}/outputs",
        "AMLCTL_RUN_ID": record.run,
        "AMLCTL_ATTEMPT": "1",
        "PYTHONUNBUFFERED": "1",
        "GREETING": "hé",
        "TOKEN": "secret",
        "PYTHONPATH": f"{container}/pipeline:/x",
    }


@pytest.mark.parametrize(
    ("config", "content", "written"),
    [
        ("pipeline/configs/a.json", {"lr": 0.1, "name": "é"}, '{\n  "lr": 0.1,\n  "name": "é"\n}\n'),
        ("pipeline/configs/b.yaml", "lr: 1e-3  # small\n", "lr: 1e-3  # small\n"),
    ],
)
def test_config_is_written_as_it_was_merged(node: Node, config: str, content: Any, written: str) -> None:
    record = node.record(
        "import sys; assert sys.argv[1] == '--config'; print(open(sys.argv[2], encoding='utf-8').read(), end='')",
        config=config,
        config_content=content,
    )
    code, text = node.run(record, variables={"PYTHONIOENCODING": "utf-8"})
    assert (code, text) == (0, written)
    assert (node.container / "config" / Path(config).name).is_file()


def test_datasets_stand_where_the_script_looks(node: Node, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "small.txt").write_text("small")
    (source / "large.bin").write_bytes(b"x" * (2 << 20))
    published = publish(node.store, source, "working/a")
    record = node.record(
        """
        import os
        root = os.environ["AMLCTL_DATA_BLOBS_DIR"] + "/working/a"
        print(open(root + "/sub/small.txt").read(), os.path.getsize(root + "/large.bin"))
        """,
        datasets={"working/a": published.snapshot},
        manifests={"working/a": published.manifest_key},
    )
    assert node.run(record) == (0, f"small {2 << 20}\n")


def test_processes_of_one_node_share_its_datasets(node: Node, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(50):
        (source / f"{number}.txt").write_text(str(number))
    published = publish(node.store, source, "d")
    record = node.record(
        "import os; print(len(os.listdir(os.environ['AMLCTL_DATA_BLOBS_DIR'] + '/d')))",
        manifests={"d": published.manifest_key},
    )
    processes = [node.start(record, variables={"LOCAL_RANK": str(rank), "NODE_RANK": "0"}) for rank in range(3)]
    assert [process.communicate(timeout=60)[0] for process in processes] == ["50\n"] * 3


def test_missing_dataset_is_one_line(node: Node) -> None:
    record = node.record("print('never')", manifests={"working/a": "datasets/working/a/none"})
    code, text = node.run(record)
    assert code == 1
    assert text.startswith("[amlctl] dataset working/a cannot be read")
    assert text.count("\n") == 1
    failure = json.loads(node.store.get(failure_key(record.run)))
    assert failure["kind"] == "not_found"
    assert "working/a" in failure["message"]


def test_damaged_dataset_is_one_line(node: Node, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "large.bin").write_bytes(b"x" * (2 << 20))
    published = publish(node.store, source, "d")
    stored = next(path for path in (tmp_path / "store" / "objects").rglob("*") if path.is_file())
    stored.chmod(0o644)
    stored.write_bytes(b"y" * (2 << 20))
    record = node.record("print('never')", manifests={"d": published.manifest_key}, mode="download")
    code, text = node.run(record)
    assert (code, text.count("\n")) == (1, 1), text
    assert json.loads(node.store.get(failure_key(record.run)))["kind"] == "integrity"


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_exit_code_is_the_scripts(node: Node, code: int) -> None:
    record = node.record(f"import sys; sys.exit({code})")
    assert node.run(record) == (code, "")
    assert not (node.store.info(failure_key(record.run)))


def test_killed_script_keeps_its_outputs(node: Node) -> None:
    record = node.record(
        """
        import os, signal
        open(os.environ["AMLCTL_OUTPUTS_DIR"] + "/model.bin", "w").write("half")
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert node.run(record)[0] == 128 + signal.SIGKILL
    assert node.output(record, "model.bin") == b"half"


WAITING = """
    import os, signal, sys, time
    def stop(number, frame):
        open(os.environ["AMLCTL_OUTPUTS_DIR"] + "/last.txt", "w").write(str(number))
        sys.exit(7)
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    open(os.environ["AMLCTL_OUTPUTS_DIR"] + "/first.txt", "w").write("1")
    print("ready")
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_is_handed_on_and_last_words_are_kept(node: Node, number: signal.Signals) -> None:
    record = node.record(WAITING)
    process = node.start(record)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 7
    assert node.output(record, "last.txt") == str(int(number)).encode()


def test_deaf_script_and_its_children_are_killed_after_the_grace(node: Node) -> None:
    record = node.record(
        """
        import signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(child.pid)
        time.sleep(600)
        """
    )
    process = node.start(record, "--grace", "0.2")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL
    wait_until(lambda: not _is_running(child))


def test_outputs_are_saved_while_the_script_works(node: Node) -> None:
    record = node.record(WAITING)
    process = node.start(record, "--save-interval", "0.05")
    try:
        wait_until(lambda: node.store.info(outputs_prefix(record.run) + "first.txt"))
        names = wait_until(lambda: [file.path for file in read_index(node.store, outputs_index_key(record.run)) or []])
        assert names == ["first.txt"]
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_restart_gets_the_outputs_back(node: Node) -> None:
    record = node.record(
        """
        import os
        path = os.environ["AMLCTL_OUTPUTS_DIR"] + "/epochs/log.txt"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, "a").write("attempt " + os.environ["AMLCTL_ATTEMPT"] + "\\n")
        print(open(path).read(), end="")
        """
    )
    assert node.run(record) == (0, "attempt 1\n")
    shutil.rmtree(node.container)  # another node
    assert node.run(record) == (0, "[amlctl] attempt 2\nattempt 1\nattempt 2\n")
    assert node.output(record, "epochs/log.txt") == b"attempt 1\nattempt 2\n"


def test_processes_of_a_node_agree_on_the_attempt(node: Node) -> None:
    """Whichever of them comes first; what an earlier start has left in the container does not count."""
    record = node.record("import os; print(os.environ['AMLCTL_ATTEMPT'])", processes=2)
    for attempt in ("1", "2", "3"):
        second = node.start(record, "--rank", "0", "1")
        wait_until((node.container / ".amlctl-node" / "processes" / "1").exists)
        first = node.start(record, "--rank", "0", "0")
        for process in (first, second):
            text, _ = process.communicate(timeout=60)
            assert text.splitlines()[-1] == attempt
        if attempt == "2":
            shutil.rmtree(node.container)


def test_produced_dataset_is_published_without_head(node: Node) -> None:
    script = """
        import os
        root = os.environ["AMLCTL_DATA_BLOBS_DIR"] + "/working/new"
        os.makedirs(root)
        for number in range(20):
            open(f"{root}/{number}.txt", "w").write(str(number))
    """
    record = node.record(script, produces=["working/new"])
    code, text = node.run(record)
    assert code == 0, text
    published = json.loads(node.store.get(published_key(record.run)))["working/new"]
    assert node.store.info(published["manifest_key"]) is not None
    assert node.store.info("datasets/working/new/HEAD") is None
    consumer = node.record(
        "import os; print(len(os.listdir(os.environ['AMLCTL_DATA_BLOBS_DIR'] + '/working/new')))",
        manifests={"working/new": published["manifest_key"]},
    )
    shutil.rmtree(node.container)
    assert node.run(consumer) == (0, "20\n")


def test_dataset_that_was_promised_but_not_written(node: Node) -> None:
    record = node.record("print('lazy')", produces=["working/new"])
    code, text = node.run(record)
    assert code == 1
    assert "working/new" in text.splitlines()[-1]
    assert json.loads(node.store.get(failure_key(record.run)))["kind"] == "not_found"


def test_failed_script_publishes_nothing(node: Node) -> None:
    record = node.record(
        "import os, sys; os.makedirs(os.environ['AMLCTL_DATA_BLOBS_DIR'] + '/n'); sys.exit(4)", produces=["n"]
    )
    assert node.run(record)[0] == 4
    assert node.store.info(published_key(record.run)) is None


def test_data_that_will_not_be_kept_is_reported(node: Node, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "small.txt").write_text("small")
    published = publish(node.store, source, "working/a/in")
    script = """
        import os, pathlib
        root = pathlib.Path(os.environ["AMLCTL_DATA_BLOBS_DIR"])
        for name in ("working/a/in/small.txt", "working/a/in/sub/new.txt", "working/b/c/new", "working/new/kept"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).unlink(missing_ok=True)
            (root / name).write_text("new")
    """
    code, text = node.run(
        node.record(script, manifests={"working/a/in": published.manifest_key}, produces=["working/new"])
    )
    assert code == 0
    lost = "will not be saved; to save such files, submit --produces"
    assert text.splitlines()[:-1] == [
        f"[amlctl] 2 files written to data_blobs/working/a/in {lost} working/a/in",
        f"[amlctl] 1 file written to data_blobs/working/b {lost} working/b",
    ]


def test_missing_run_is_one_line(node: Node) -> None:
    record = node.record("pass")
    node.store.delete(record_key(record.run))
    code, text = node.run(record)
    assert (code, text.count("\n")) == (1, 1)


def test_other_nodes_save_beside_the_first(node: Node) -> None:
    record = node.record("import os; open(os.environ['AMLCTL_OUTPUTS_DIR'] + '/x', 'w').write('2')")
    assert node.run(record, variables={"NODE_RANK": "2", "LOCAL_RANK": "0"})[0] == 0
    assert node.store.get(outputs_prefix(record.run, 2) + "x") == b"2"
    assert node.store.info(outputs_index_key(record.run)) is None


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, NodeRank(0, 0)),
        ({"NODE_RANK": "1", "LOCAL_RANK": "3", "RANK": "7"}, NodeRank(1, 3)),
        ({"RANK": "5", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}, NodeRank(1, 1)),
        (
            {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"},
            NodeRank(1, 1),
        ),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a", "b"]}, "task": {"type": "worker", "index": 1}}'}, NodeRank(1, 0)),
        (
            {"TF_CONFIG": '{"cluster": {"chief": ["a"], "worker": ["b"]}, "task": {"type": "worker", "index": 0}}'},
            NodeRank(1, 0),
        ),
        ({"TF_CONFIG": "no json"}, NodeRank(0, 0)),
    ],
)
def test_rank_as_launchers_tell_it(variables: dict[str, str], expected: NodeRank) -> None:
    assert node_rank(variables) == expected


ONLY_XXHASH = """
import importlib.abc, sys
class Bare(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("amlctl", "xxhash"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
before = set(sys.modules)
sys.meta_path.insert(0, Bare())
import amlctl.runtime.__main__
names = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(names - set(sys.stdlib_module_names) - {"amlctl"}))
"""


def test_runtime_needs_xxhash_alone() -> None:
    result = subprocess.run([sys.executable, "-c", ONLY_XXHASH], capture_output=True, text=True, check=False)
    assert (result.stdout.strip(), result.stderr) == ("['xxhash']", "")


def test_runs_under_python_3_9(node: Node, tmp_path: Path) -> None:
    python = _python_3_9()
    if python is None:
        pytest.skip("no Python 3.9 on the PATH or under ~/.pyenv")
    venv = tmp_path / "venv39"
    subprocess.run([python, "-m", "venv", str(venv)], check=True, capture_output=True)
    made = subprocess.run(
        [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "xxhash"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip(f"xxhash cannot be installed for Python 3.9: {made.stderr.strip()[-200:]}")
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.txt").write_text("data")
    published = publish(node.store, source, "d")
    record = node.record(
        """
        import os, sys
        root = os.environ["AMLCTL_DATA_BLOBS_DIR"]
        os.mkdir(root + "/new")
        open(root + "/new/b.txt", "w").write("made")
        open(os.environ["AMLCTL_OUTPUTS_DIR"] + "/o.txt", "w").write("out")
        print(sys.version_info[:2], open(root + "/d/a.txt").read())
        """,
        manifests={"d": published.manifest_key},
        produces=["new"],
    )
    code, text = node.run(record, python=str(venv / "bin" / "python"))
    assert code == 0, text
    assert text.splitlines()[0] == "(3, 9) data"
    assert node.output(record, "o.txt") == b"out"
    assert node.store.info(published_key(record.run)) is not None


def _python_3_9() -> str | None:
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)  # not $HOME, which the tests move
    candidates = [*sorted(home.glob(".pyenv/versions/3.9.*/bin/python3.9")), shutil.which("python3.9")]
    for candidate in candidates:
        if candidate is not None:
            result = subprocess.run([str(candidate), "-c", "pass"], capture_output=True, check=False)
            if result.returncode == 0:
                return str(candidate)
    return None


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.strip().startswith("Z")


@pytest.mark.skipif(sys.platform != "linux", reason="what /dev/stdout is differs")
@pytest.mark.parametrize("is_one", [True, False])
def test_a_script_cannot_empty_the_logs_of_its_node(node: Node, tmp_path: Path, is_one: bool) -> None:
    """Where the launcher has made files of the runtime's streams."""
    record = node.record("""
        import subprocess
        print("first")
        subprocess.run("echo second > /dev/stdout; echo third > /dev/stderr; echo fourth", shell=True)
        print("fifth")
    """)
    node.make_container(record)
    command = [sys.executable, "-m", "amlctl.runtime", "--store", str(tmp_path / "store"), "--run", record.run]
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        done = subprocess.run(
            [*command, "--container", str(node.container)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(node.runtime)},
            stdout=out,
            stderr=out if is_one else err,
            check=False,
        )
    assert done.returncode == 0
    words = (tmp_path / "out").read_text().split()
    expected = ["first", "second", "third", "fourth", "fifth"]
    assert words == (expected if is_one else [word for word in expected if word != "third"])
    assert (tmp_path / "err").read_text().split() == ([] if is_one else ["third"])


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are found on Linux only")
def test_the_process_tree_of_a_node_ends_with_the_script(node: Node) -> None:
    record = node.record("""
        import subprocess, sys
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", "import os, time; os.setsid(); print(os.getpid(), flush=True);"
             " os.close(1); os.close(2); time.sleep(600)"], stdout=subprocess.PIPE, env={})
        print(child.stdout.readline().decode(), flush=True)
    """)
    code, text = node.run(record)
    pid, reported = text.split(None, 1)
    assert code == 0
    assert reported == f"[amlctl] ended 1 process that the script left running: python ({pid})\n"
    assert not Path(f"/proc/{pid}").exists()


def test_a_second_start_finds_times_and_folders_as_the_first_left_them(node: Node) -> None:
    record = node.record("""
        import os, time
        out = os.environ["AMLCTL_OUTPUTS_DIR"]
        found = sorted(os.listdir(out), key=lambda name: os.path.getmtime(os.path.join(out, name)))
        if os.environ["AMLCTL_ATTEMPT"] == "1":
            os.makedirs(out + "/empty/folder")
            os.utime(out + "/empty", (0, 0))
            for name in ("ckpt-900", "ckpt-100", "ckpt-1000"):
                open(f"{out}/{name}", "w").write("x")
                time.sleep(0.02)
        else:
            found = [name for name in found if name != "empty"]
            print(*found, os.path.isdir(out + "/empty/folder"))
    """)
    assert node.run(record) == (0, "")
    for attempt in (2, 3):
        shutil.rmtree(node.container)
        assert node.run(record) == (0, f"[amlctl] attempt {attempt}\nckpt-900 ckpt-100 ckpt-1000 True\n")


def test_hangup_is_handed_on_and_nohup_is_kept(node: Node) -> None:
    record = node.record(WAITING.replace("SIGTERM", "SIGHUP"))
    process = node.start(record)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 7
    assert node.output(record, "last.txt") == str(int(signal.SIGHUP)).encode()


def test_a_dataset_that_changes_through_a_memory_map_is_published_as_it_is(node: Node) -> None:
    record = node.record(
        """
        import mmap, os
        root = os.environ["AMLCTL_DATA_BLOBS_DIR"] + "/d"
        os.makedirs(root)
        with open(root + "/f", "wb") as file:
            file.truncate(3 << 20)
        with open(root + "/f", "r+b") as file, mmap.mmap(file.fileno(), 3 << 20) as memory:
            memory[:5] = b"FINAL"
            os.utime(root + "/f", (0, 0))
        """,
        produces=["d"],
    )
    assert node.run(record)[0] == 0
    key = json.loads(node.store.get(published_key(record.run)))["d"]["manifest_key"]
    consumer = node.record(
        "import os; print(open(os.environ['AMLCTL_DATA_BLOBS_DIR'] + '/d/f', 'rb').read(5).decode())",
        manifests={"d": key},
    )
    shutil.rmtree(node.container)
    assert node.run(consumer) == (0, "FINAL\n")
