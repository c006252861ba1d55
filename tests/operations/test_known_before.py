"""What can be known before a run is said before one is made: no record, nothing sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amlctl.core.events import Note, Warned, null_sink
from amlctl.errors import AmlctlError, CheckFailed, SettingsError, UsageError
from amlctl.operations import environment
from amlctl.operations.status import status
from amlctl.operations.submit.check import check_syntax
from amlctl.operations.submit.submit import plan
from amlctl.operations.sync.pull import pull
from amlctl.operations.sync.sync import SyncOptions, dry_run, sync
from amlctl.stores.directory import DirectoryStore
from amlctl.workspaces.local.workspace import LocalWorkspace
from tests.support.bench import Bench, make_bench
from tests.support.context import Context


def assert_refused(bench: Bench, kind: type[AmlctlError], match: str, script: str = "", **more: Any) -> None:
    """By submit and by --dry-run alike, with no run made."""
    for submit in (bench.submit, lambda *given, **options: dry_submit(bench, *given, **options)):
        with pytest.raises(kind, match=match):
            submit(script, **more)
    assert list(bench.store.list("runs/")) == []
    assert bench.workspace.list_runs() == []


def dry_submit(bench: Bench, script: str = "", **more: Any) -> object:
    request = bench.request(script, **more)
    return plan(bench, request)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = 1\ndef f(:\n    pass\n", 2),
        ("if True:\nprint(1)\n", 2),
        ("return 1\n", 1),
        ("x = (1,\n", 1),
        ("for x in y:\n    pass\n\tpass\n", 3),
    ],
)
def test_a_script_that_python_cannot_parse(bench: Bench, text: str, line: int) -> None:
    bench.script(text, "bad.py")
    assert_refused(bench, CheckFailed, rf"pipeline/bad\.py:{line}: (Syntax|Indentation|Tab)Error", "bad.py")


def test_the_place_in_the_line_is_shown(bench: Bench) -> None:
    bench.script("    \nvalue = 1 +* 2\n", "bad.py")
    with pytest.raises(CheckFailed) as caught:
        bench.submit("bad.py")
    assert list(caught.value.details) == ["value = 1 +* 2", "           ^"]


def test_a_script_in_the_encoding_that_it_names_runs(bench: Bench) -> None:
    path = bench.write("pipeline/latin.py")
    path.write_bytes("# -*- coding: latin-1 -*-\nprint('\u00e9')\n".encode("latin-1"))
    assert bench.submit("latin.py").record.status == "Completed"


def test_syntax_that_the_runs_python_is_too_old_for() -> None:
    source = b"match 1:\n    case 1:\n        pass\n"
    check_syntax(source, "x.py", (3, 10), null_sink)
    with pytest.raises(CheckFailed, match=r"3\.10"):
        check_syntax(source, "x.py", (3, 9), null_sink)


def test_syntax_that_a_newer_python_may_know_is_a_warning(bench: Bench) -> None:
    check_syntax(b"x = = 1\n", "x.py", (3, 99), bench.events.append)
    (warned,) = bench.reported(Warned)
    assert "x.py:1" in warned.message


@pytest.mark.parametrize("python", ["3.6", "2.7", "3.39"])
def test_a_python_that_cannot_be(bench: Bench, python: str) -> None:
    bench.script("print(1)")
    bench.write("pptdaml.yaml", f"dependencies:\n- python={python}\n")
    assert_refused(bench, SettingsError, r"pptdaml\.yaml:2: ", "train.py", environment=None)
    with pytest.raises(SettingsError, match=r"pptdaml\.yaml:2: "):
        environment.show(bench)


def test_packages_that_cannot_be(bench: Bench, tmp_path: Path) -> None:
    variables = {"PATH": "/usr/bin:/bin", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    workspace = LocalWorkspace(bench.project, bench.settings.workspace(), bench.store, variables=variables)
    bench = replace(bench, workspace=workspace)
    bench.script("print(1)")
    bench.write("pptdaml.yaml", "dependencies:\n- pip:\n  - nosuchpackage==9\n")
    match = r"pptdaml\.yaml:3: .*nosuchpackage==9"
    assert_refused(bench, SettingsError, match, "train.py", environment=None)
    with pytest.raises(SettingsError, match=match):
        environment.show(bench)


Verb = Callable[[Bench, DirectoryStore], object]
VERBS: dict[str, Verb] = {
    "sync": lambda bench, store: sync(Context(bench.project, store), "working/d", SyncOptions()),
    "dry run": lambda bench, store: dry_run(Context(bench.project, store), "working/d", SyncOptions()),
    "pull": lambda bench, store: pull(Context(bench.project, store), "working/d", SyncOptions()),
    "status": lambda bench, store: status(Context(bench.project, store), "working/d", SyncOptions()),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("place", ["d", "d/backup", "d/a/b/backup", "link-to-d/backup", "objects"])
def test_a_store_and_a_dataset_in_one_another(bench: Bench, verb: str, place: str) -> None:
    working = bench.project.data_blobs_dir / "working"
    bench.write("data_blobs/working/d/1", "1")
    (working / "link-to-d").symlink_to("d")
    if place == "objects":  # the dataset is a part of the store
        (working / "d/1").unlink()
        (working / "d").rmdir()
        store = DirectoryStore(bench.project.root / "elsewhere")
        (bench.project.root / "elsewhere/objects").mkdir(parents=True)
        (working / "d").symlink_to(bench.project.root / "elsewhere/objects")
    else:
        store = DirectoryStore(working / place)
    with pytest.raises(UsageError, match="store"):
        VERBS[verb](bench, store)
    assert list(working.rglob("format.json")) == []


@pytest.mark.parametrize("target", ["", "packs", "datasets", "datasets/working", ".."])
def test_a_link_in_the_dataset_that_leads_into_the_store(bench: Bench, target: str) -> None:
    for number in range(30):
        bench.write(f"data_blobs/working/d/{number}", str(number))
    sync(bench, "working/d", SyncOptions())
    link = bench.project.data_blobs_dir / "working/d/more"
    link.symlink_to(Path(bench.store.url) / target)
    with pytest.raises(UsageError, match=r"data_blobs/working/d/more leads into the store"):
        sync(bench, "working/d", SyncOptions())
    bench.write("data_blobs/working/d/.amlctlignore", "/more/store/" if target == ".." else "/more")
    sync(bench, "working/d", SyncOptions())


def test_a_folder_from_which_python_cannot_import(tmp_path: Path) -> None:
    bench = make_bench(tmp_path / "at 10:30")
    bench.script("print(1)")
    assert_refused(bench, UsageError, "has a ':' in its path", "train.py")


def test_a_store_around_a_dataset(bench: Bench) -> None:
    bench.write("data_blobs/raw/d/1", "1")
    bench = replace(bench, store=DirectoryStore(bench.project.data_blobs_dir / "raw"))
    with pytest.raises(UsageError, match=r"data_blobs/raw/d lies inside the store .*/data_blobs/raw"):
        sync(bench, "raw/d", SyncOptions())
    assert [path.name for path in (bench.project.data_blobs_dir / "raw").iterdir()] == ["d"]


def test_a_store_among_the_code(bench: Bench) -> None:
    bench.script("print(1)")
    bench = replace(bench, store=DirectoryStore(bench.project.pipeline_dir / "store"))
    assert_refused(bench, UsageError, "lies inside pipeline/", "train.py")


@pytest.mark.parametrize(
    ("given", "reported"),
    [
        ({"experiment": ""}, "--experiment"),
        ({"experiment": "  "}, "--experiment"),
        ({"experiment": "a\nb"}, "--experiment"),
        ({"name": ""}, "--name"),
        ({"name": "\u65e5\u672c"}, "--name"),
        ({"compute": ""}, "--compute"),
        ({"config": ""}, "--config"),
        ({"mode": ""}, "--mode"),
        ({"datasets": ("",)}, "--dataset"),
        ({"produces": ("working/x", "")}, "--produces"),
    ],
)
def test_what_was_typed_is_refused_where_it_cannot_be_used(
    bench: Bench, given: dict[str, object], reported: str
) -> None:
    bench.script("print(1)")
    assert_refused(bench, UsageError, reported, "train.py", **given)


def test_a_name_that_an_id_cannot_have_as_it_is(bench: Bench) -> None:
    bench.script("print(1)")
    result = bench.submit("train.py", name="my first try")
    assert result.record.run.startswith("my-first-try-")
    assert any("'my-first-try' instead of 'my first try'" in note.message for note in bench.reported(Note))


def test_a_run_whose_environment_fails_has_no_exit_code_and_was_never_running(bench: Bench, tmp_path: Path) -> None:
    """Its packages are available, but one of them cannot be installed."""
    tool = tmp_path / "tools/micromamba"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'error: no such package'; exit 3\n")
    tool.chmod(0o755)
    variables = {"PATH": f"{tool.parent}:/usr/bin:/bin"}
    workspace = LocalWorkspace(bench.project, bench.settings.workspace(), bench.store, variables=variables)
    bench = replace(bench, workspace=workspace)
    bench.script("print(1)")
    bench.write("pptdaml.yaml", "dependencies:\n- nosuchpackage\n")
    record = bench.submit("train.py", environment=None).record
    assert (record.status, record.exit_code) == ("Failed", None)
    assert record.error is not None
    assert record.error["kind"] == "environment"
    assert "Running" not in record.times
