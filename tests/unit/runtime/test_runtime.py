"""The runtime as a real process, started as a node starts it: the shipped package, a store folder, a container."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amlctl.core.run_id import child_id
from amlctl.core.store_keys import (
    failure_key,
    outputs_index_key,
    outputs_prefix,
    published_key,
    record_key,
    trial_key,
)
from amlctl.runs.code import runtime_archive
from amlctl.runs.produced import Publisher
from amlctl.runs.records import load_record
from amlctl.runtime.ranks import NodeRank, node_rank
from tests.support.runtime_node import Node


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
    published = Publisher(node.store, source, "working/a").publish()
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
    published = Publisher(node.store, source, "d").publish()
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
    published = Publisher(node.store, source, "d").publish()
    stored = next(path for path in (tmp_path / "store" / "objects").rglob("*") if path.is_file())
    stored.chmod(0o644)
    stored.write_bytes(b"y" * (2 << 20))
    record = node.record("print('never')", manifests={"d": published.manifest_key}, mode="download")
    code, text = node.run(record)
    assert (code, text.count("\n")) == (1, 1), text
    assert json.loads(node.store.get(failure_key(record.run)))["kind"] == "integrity"


@pytest.mark.parametrize("code", [0, 1, 255])
def test_exit_code_is_the_scripts(node: Node, code: int) -> None:
    record = node.record(f"import sys; sys.exit({code})")
    assert node.run(record) == (code, "")
    assert not (node.store.info(failure_key(record.run)))


def test_produced_dataset_is_published_without_head(node: Node) -> None:
    node.is_zipped = True
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
    published = Publisher(node.store, source, "working/a/in").publish()
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


def test_results_beside_the_outputs_are_named(node: Node) -> None:
    script = """
        import os, pathlib
        for name in ("results/a/1.txt", "results/2.txt", "__pycache__/x", ".cache/x", "pipeline/made/x", "model.bin",
                     "../beside/x"):
            pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True)
            pathlib.Path(name).write_text("1")
        os.mkdir("../beside/empty")
        pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"], "kept").write_text("1")
    """
    code, text = node.run(node.record(script))
    assert code == 0
    assert text.splitlines() == [
        "[amlctl] 5 files will not be saved: ../beside, model.bin, pipeline/made, results; outputs are what is in the "
        "folder that AMLCTL_OUTPUTS_DIR names: file_paths.outputs_dir()"
    ]


def test_missing_run_is_one_line(node: Node) -> None:
    record = node.record("pass")
    node.store.delete(record_key(record.run))
    code, text = node.run(record)
    assert (code, text.count("\n")) == (1, 1)


def test_a_run_of_a_sweep_is_what_azure_ml_names_it(node: Node) -> None:
    sweep = node.record(
        "import os; open(os.environ['AMLCTL_OUTPUTS_DIR'] + '/x', 'w').write(os.environ['AMLCTL_RUN_ID'])"
    )
    spec = replace(sweep.spec, combination={"lr": "0.1"})
    planned = replace(sweep, run=child_id(sweep.run, 4), spec=spec, outputs="outputs/x")
    node.store.put(trial_key(sweep.run, 4), planned.to_bytes())
    named = f"{sweep.run}_0"
    code, text = node.run(sweep, "--trial", "4", variables={"AZUREML_RUN_ID": named})
    assert (code, text) == (0, "")
    saved = load_record(node.store, named)
    assert saved is not None
    assert (saved.spec.combination, saved.outputs) == ({"lr": "0.1"}, f"outputs/{named}")
    assert node.store.get(outputs_prefix(named) + "x") == named.encode()
    code, text = node.run(sweep, "--trial", "5", variables={"AZUREML_RUN_ID": f"{sweep.run}_1"})
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
def test_the_rank_comes_from_the_launcher(variables: dict[str, str], expected: NodeRank) -> None:
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


IMPORT_ALL = """
import importlib, sys, zipfile
sys.path.insert(0, sys.argv[1])
for name in zipfile.ZipFile(sys.argv[1]).namelist():
    if not name.endswith("__main__.py"):
        importlib.import_module(name[: -len(".py")].replace("/", "."))
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
    published = Publisher(node.store, source, "d").publish()
    node.is_zipped = True
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
    (tmp_path / "runtime.zip").write_bytes(runtime_archive())
    command = [str(venv / "bin" / "python"), "-c", IMPORT_ALL, str(tmp_path / "runtime.zip")]
    imported = subprocess.run(command, capture_output=True, text=True, check=False)
    assert imported.returncode == 0, imported.stderr


def _python_3_9() -> str | None:
    home = Path(pwd.getpwuid(os.getuid()).pw_dir)  # not $HOME, which the tests move
    candidates = [*sorted(home.glob(".pyenv/versions/3.9.*/bin/python3.9")), shutil.which("python3.9")]
    for candidate in candidates:
        if candidate is not None:
            result = subprocess.run([str(candidate), "-c", "pass"], capture_output=True, check=False)
            if result.returncode == 0:
                return str(candidate)
    return None


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
