"""A run that is repeated, and the code that a submit sends."""

from __future__ import annotations

import io
import os
import subprocess
from dataclasses import replace
from zipfile import ZipFile

import pytest

from amlctl.core.content_id import content_id
from amlctl.core.events import Note
from amlctl.core.job import RUNTIME_ARCHIVE
from amlctl.core.manifest import FileEntry, entry_order, snapshot_id
from amlctl.core.store_keys import code_index_key, code_prefix
from amlctl.errors import NotFound
from amlctl.runs.records import save_local_record
from amlctl.runs.tree import TreeFile, encode_index, read_index
from tests.support.bench import Bench
from tests.support.faulty_store import Call, FaultyStore
from tests.support.shared_runtime import own_runtime
from tests.support.shown_run import SHOW_ALL, log_of, seen


def test_a_run_whose_runtime_was_a_folder_of_its_code_is_repeated(bench: Bench) -> None:
    """As code snapshots had it before the runtime became one file."""
    bench.script("print('repeated')")
    first = bench.submit("train.py").record
    files = {file.path: file for file in read_index(bench.store, code_index_key(first.spec.code)) or ()}
    archive = ZipFile(io.BytesIO(bench.store.get(code_prefix(first.spec.code) + RUNTIME_ARCHIVE)))
    contents = {name: archive.read(name) for name in archive.namelist()}
    contents.update(
        {path: bench.store.get(code_prefix(first.spec.code) + path) for path in files if path != RUNTIME_ARCHIVE}
    )
    entries = sorted(
        (FileEntry(path, len(data), False, content_id(data)) for path, data in contents.items()), key=entry_order
    )
    code = snapshot_id(entries)
    for path, data in contents.items():
        bench.store.put(code_prefix(code) + path, data)
    bench.store.put(code_index_key(code), encode_index([TreeFile(*entry) for entry in entries]))
    save_local_record(bench.project.state_dir, replace(first, spec=replace(first.spec, code=code)))
    again = bench.submit(from_run=first.run).record
    assert (again.status, again.spec.code) == ("Completed", code)
    assert log_of(bench).count("repeated") == 2


def test_the_runtime_is_unpacked_once_and_an_old_one_is_removed(bench: Bench) -> None:
    bench.script("print(1)")
    runtimes = own_runtime(bench.project.state_dir)
    (runtimes / "0123").mkdir(parents=True)
    os.utime(runtimes / "0123", (0, 0))
    assert bench.submit("train.py").record.status == "Completed"
    (runtime,) = runtimes.iterdir()
    module = runtime / "amlctl/runtime/__main__.py"
    seen = module.stat().st_ino
    assert bench.submit("train.py", name="again").record.status == "Completed"
    assert module.stat().st_ino == seen


def test_from_repeats_a_run_exactly(bench: Bench) -> None:
    bench.script(SHOW_ALL)
    bench.write("pipeline/c.json", '{"a": 1}')
    bench.write("data_blobs/raw/x.txt", "one")
    first = bench.submit(
        "train.py", config="c.json", datasets=("raw",), arguments=("--n", "1"), variables={"PLAIN": "p"}
    ).record
    bench.script("raise SystemExit('changed since')")
    bench.write("pipeline/c.json", '{"a": 2}')
    bench.write("data_blobs/raw/x.txt", "two")
    again = bench.submit(from_run="@last").record
    assert again.status == "Completed"
    assert again.spec.from_run == first.run
    assert again.run != first.run
    for name in ("code", "datasets", "manifests", "config_content", "arguments", "environment", "variables"):
        assert getattr(again.spec, name) == getattr(first.spec, name), name
    one, other = seen(bench, first.run), seen(bench, again.run)
    assert one["data"] == other["data"]
    assert one["config"] == other["config"]
    varied = bench.submit(from_run=first.run, overrides=("a=5",), arguments=("--n", "2")).record
    assert varied.spec.config_content == {"a": 5}
    assert varied.spec.arguments == ["--n", "2"]
    assert varied.spec.datasets == first.spec.datasets


@pytest.mark.parametrize("damage", ["missing", "cut", "overwritten", "index"])
def test_damaged_code_is_sent_again(bench: Bench, damage: str) -> None:
    bench.script("print('whole')")
    code = bench.submit("train.py").record.spec.code
    path = bench.store.local_path(f"code/{code}.json" if damage == "index" else f"code/{code}/pipeline/train.py")
    assert path is not None
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(data[:5] if damage == "cut" else data[::-1])
    again = bench.submit("train.py").record
    assert (again.status, again.spec.code) == ("Completed", code)
    assert path.read_bytes() == data


def test_a_service_that_has_the_code_is_asked_for_its_index_and_a_listing(bench: Bench) -> None:
    bench.script("print(1)")
    code = bench.submit("train.py").record.spec.code
    store = FaultyStore(bench.store, lambda call: None, is_remote=True)
    assert replace(bench, store=store).submit("train.py").record.spec.code == code
    asked = {(call.method, call.key) for call in store.calls if call.key.startswith("code/")}
    asked = {(method, key) for method, key in asked if method != "local_path"}  # no request
    index = f"code/{code}.json"
    assert asked <= {("get", index), ("info", index), ("list", f"code/{code}/")}


def test_code_that_a_gc_takes_meanwhile_is_sent_again(bench: Bench) -> None:
    bench.script("print(1)")
    code = bench.submit("train.py").record.spec.code
    took: list[str] = []

    def collect(call: Call) -> None:
        # After the code was found there, before the run that names it is recorded.
        if call.is_done or call.method != "put" or not call.key.endswith("/record.json") or took:
            return
        took.append(call.key)
        for entry in list(bench.store.list(f"code/{code}/")):
            bench.store.delete(entry.key)
        bench.store.delete(f"code/{code}.json")

    store = FaultyStore(bench.store, collect)
    assert replace(bench, store=store).submit("train.py").record.status == "Completed"
    assert took
    assert bench.store.info(f"code/{code}.json") is not None
    assert bench.submit("train.py").record.status == "Completed"


def test_from_has_the_commit_of_the_code_that_it_repeats(bench: Bench) -> None:
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(bench.project.root)]
    subprocess.run([*git, "init", "-q", "."], check=True)
    bench.script("print(1)")

    def commit() -> None:
        subprocess.run([*git, "add", "pipeline"], check=True)
        subprocess.run([*git, "commit", "-q", "-m", "one"], check=True)

    commit()
    first = bench.submit("train.py").record
    bench.script("print(2)")
    commit()
    bench.script("print(3)")
    again = bench.submit(from_run=first.run).record
    assert first.spec.git is not None
    assert again.spec.git == first.spec.git
    present = bench.submit("train.py", from_run=first.run, environment="current").record
    assert present.spec.git is not None
    assert present.spec.git["commit"] != first.spec.git["commit"]
    assert present.spec.git["dirty"] is True


def test_from_names_what_is_gone(bench: Bench) -> None:
    bench.script(SHOW_ALL)
    bench.write("data_blobs/raw/x.txt", "one")
    record = bench.submit("train.py", datasets=("raw",)).record
    bench.store.delete(record.spec.manifests["raw"])
    with pytest.raises(NotFound, match="raw"):
        bench.submit(from_run=record.run)
    bench.store.delete(f"code/{record.spec.code}.json")
    with pytest.raises(NotFound, match="code"):
        bench.submit(from_run=record.run, datasets=())


def test_ignored_files_are_not_part_of_the_code(bench: Bench) -> None:
    bench.write(".gitignore", "*.ckpt\n")
    bench.write("pipeline/big.ckpt", "weights")
    bench.write("pipeline/sub/.amlctlignore", "/local.txt\n")
    bench.write("pipeline/sub/local.txt", "mine")
    bench.write("pipeline/sub/kept.txt", "kept")
    bench.script("print(1)")
    code = bench.submit("train.py").record.spec.code
    sent = {entry.key.removeprefix(f"code/{code}/") for entry in bench.store.list(f"code/{code}/pipeline/")}
    assert sent == {"pipeline/train.py", "pipeline/sub/.amlctlignore", "pipeline/sub/kept.txt"}
    assert any(event.message.startswith("code: 3 files; ") for event in bench.reported(Note))
