from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from amlctl.core.events import Warned
from amlctl.core.run_state import RunState
from amlctl.core.store_keys import outputs_index_key, outputs_prefix, outputs_tree
from amlctl.errors import IntegrityError, NotFound, ServiceUnavailable, StoreGone, UsageError
from amlctl.localfs.atomic import temporary_name
from amlctl.localfs.folders import close_to_others
from amlctl.localfs.wildmatch import path_filter
from amlctl.operations.fetch import FetchResult, fetch, unlisted_outputs
from amlctl.operations.runs import open_run
from amlctl.runs.records import save_local_record, save_record
from amlctl.runs.tree_saver import TreeSaver
from tests.support.bench import Bench, copy_into, make_bench, open_bench, wait_until_tidied
from tests.support.dying_fetch import DIED
from tests.support.faulty_store import Call, FaultyStore
from tests.support.memory_store import MemoryStore
from tests.support.runs import wait_until
from tests.support.trees import Tree, read_tree, write_tree
from tests.support.warm_command import WarmCommand

WRITES = """
    import os, pathlib
    out = pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"])
    for name in ("metrics.json", "graphs/loss.png", "graphs/deep/a b.png", "model/weights.pt", "model/empty"):
        out.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        out.joinpath(name).write_text("" if name.endswith("empty") else name)
    print("log line")
"""
ALL = {"metrics.json", "graphs/loss.png", "graphs/deep/a b.png", "model/weights.pt", "model/empty"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    bench = make_bench(tmp_path_factory.mktemp("made") / "a project")
    bench.script(WRITES)
    run = bench.submit("train.py", fetch_outputs=False).record.run
    wait_until_tidied(bench)
    return bench.project.root, run


@pytest.fixture
def run(bench: Bench, made: tuple[Path, str]) -> str:
    folder, run = made
    copy_into(bench, folder)
    return run


def get(bench: Bench, run: str, **more: object) -> FetchResult:
    return fetch(bench, run, **more)  # type: ignore[arg-type]


def test_only_what_is_missing_is_downloaded(bench: Bench, run: str) -> None:
    first = get(bench, run)
    folder = bench.project.outputs_dir / run
    assert set(read_tree(folder)) == ALL
    assert (first.to, first.files, first.downloaded_files) == (f"outputs/{run}", 5, 5)
    assert first.bytes == first.downloaded_bytes == sum(len(name) for name in ALL if not name.endswith("empty"))
    store = FaultyStore(bench.store, lambda call: None)
    again = fetch(replace(bench, store=store), run)
    assert (again.files, again.downloaded_files, again.downloaded_bytes) == (5, 0, 0)
    assert [call.method for call in store.calls] == ["get"]  # their list, once
    (folder / "metrics.json").unlink()
    (folder / "mine.txt").write_text("stays")
    assert get(bench, run).downloaded_files == 1
    assert (folder / "mine.txt").read_text() == "stays"


def test_results_that_wait_here_for_the_store_are_not_nothing(bench: Bench, run: str) -> None:
    """As of a run whose store was full at its end, and still is."""
    record = bench.workspace.read(run)
    save_record(bench.store, replace(record, status=RunState.FINALIZING))
    error = {"kind": "unavailable", "message": "the results cannot be saved", "hint": "make room"}
    save_local_record(bench.project.state_dir, replace(record, status=RunState.FAILED, error=error))
    with pytest.raises(ServiceUnavailable, match="the results cannot be saved") as caught:
        get(bench, run)
    assert caught.value.hint == "make room"
    shutil.rmtree(bench.project.outputs_dir / run)
    bench.store.delete(outputs_index_key(run))
    with pytest.raises(NotFound, match="are not here yet"):
        open_run(bench, run)


def test_what_was_changed_here_is_kept_and_reported(bench: Bench, run: str, tmp_path: Path) -> None:
    folder = bench.project.outputs_dir / run
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text("was there before")
    get(bench, run)
    (folder / "graphs/loss.png").write_text("graphs/l0ss.png")
    result = get(bench, run)
    assert (result.files, result.downloaded_files) == (5, 0)
    assert sorted(result.kept) == ["graphs/loss.png", "metrics.json"]
    assert (folder / "metrics.json").read_text() == "was there before"
    assert (folder / "graphs/loss.png").read_text() == "graphs/l0ss.png"
    reported = bench.reported(Warned)[-1].message
    assert "graphs/loss.png, metrics.json" in reported
    assert f"amlctl fetch --to FOLDER {run}" in reported
    assert get(bench, run, to=tmp_path / "fresh").kept == ()


def test_what_the_run_has_written_again_replaces_what_was_fetched(bench: Bench) -> None:
    bench.script(
        """
        import itertools, os, pathlib, time
        for number in itertools.count():
            pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"], "number.txt").write_text(str(number))
            time.sleep(0.1)
        """
    )
    run = bench.submit("train.py", is_detached=True).record.run
    file = bench.project.outputs_dir / run / "number.txt"
    wait_until(lambda: get(bench, run).files == 1, "the first save of the outputs")
    first = file.read_text()
    wait_until(lambda: get(bench, run).kept == () and file.read_text() != first, "a later save")
    assert not bench.reported(Warned)


def test_a_lost_list_is_not_taken_for_no_outputs(bench: Bench, run: str) -> None:
    key = outputs_index_key(run)
    data = bench.store.get(key)
    bench.store.delete(key)
    with pytest.raises(IntegrityError, match="the list of outputs of run") as caught:
        get(bench, run)
    assert run in caught.value.hint
    bench.store.put(key, b'{"files": 7}')
    with pytest.raises(IntegrityError, match="cannot be read"):
        get(bench, run)
    bench.store.put(key, data, replace=True)
    assert get(bench, run).files == 5


def test_a_store_that_is_gone_is_not_taken_for_no_outputs(bench: Bench, run: str) -> None:
    folder = bench.store.folder
    assert folder is not None
    folder.rename(folder.with_name("unmounted"))
    with pytest.raises(StoreGone):
        get(open_bench(bench.project.root), run)


def test_a_run_without_outputs_has_nothing_to_fetch(bench: Bench) -> None:
    bench.script("print(1)")
    run = bench.submit("train.py", fetch_outputs=False).record.run
    assert get(bench, run).files == 0


def test_include_downloads_what_matches(bench: Bench, run: str, tmp_path: Path) -> None:
    target = tmp_path / "else where"
    result = get(bench, run, to=target, include=("*.png", "model/"))
    assert set(read_tree(target)) == ALL - {"metrics.json"}
    assert result.to == str(target)
    get(bench, run, to=tmp_path / "none", include=("*.gif",))
    assert any("*.gif" in event.message for event in bench.reported(Warned))


def test_logs_come_along_when_asked_for(bench: Bench, run: str) -> None:
    result = get(bench, run, with_logs=True)
    folder = bench.project.outputs_dir / run
    (log,) = (folder / "logs").iterdir()
    assert "log line" in log.read_text()
    assert result.files == 6
    assert get(bench, run, with_logs=True).downloaded_files == 0


def test_an_active_run_can_be_fetched(bench: Bench) -> None:
    bench.script(
        """
        import os, pathlib, time
        pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"], "early.txt").write_text("early")
        while True:
            time.sleep(0.1)
        """
    )
    run = bench.submit("train.py", is_detached=True).record.run
    assert get(bench, run).downloaded_files in (0, 1)
    wait_until(lambda: get(bench, run).files == 1, "the first save of the outputs")
    assert not bench.workspace.read(run).is_final
    assert read_tree(bench.project.outputs_dir / run) == {"early.txt": b"early"}


def test_what_cannot_be_fetched(bench: Bench, run: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        get(bench, "no-such-run")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError):
        get(bench, run, to=tmp_path / "file")


def save_as_run(bench: Bench, run: str, tree: Tree, node: int = 0) -> None:
    """What the run's node would save, had its script left this."""
    source = bench.project.root / "as left"
    shutil.rmtree(source, ignore_errors=True)
    write_tree(source, tree)
    TreeSaver(bench.store, source, outputs_tree(run, node)).save(is_last=True)


FIRST: Tree = {"ckpt": b"1", "model/weights": b"one", "model/deep/x": b"x", "same": b"s", "grows": b"g"}
SECOND: Tree = {"ckpt/a": b"2", "ckpt/b": b"2b", "model": b"a file now", "same": b"s", "grows": b"gg", "new": b"n"}


def test_an_output_that_became_a_folder_or_a_file_replaces_what_was_fetched(bench: Bench, run: str) -> None:
    folder = bench.project.outputs_dir / run
    for tree in (FIRST, SECOND, FIRST):
        save_as_run(bench, run, tree)
        assert get(bench, run).kept == ()
        assert {path: data for path, data in read_tree(folder).items() if path in tree} == tree


def test_what_the_user_put_in_the_way_is_kept(bench: Bench, run: str, tmp_path: Path) -> None:
    folder = bench.project.outputs_dir / run
    save_as_run(bench, run, FIRST)
    get(bench, run)
    (folder / "ckpt").write_text("mine")
    (folder / "model/deep/mine").write_text("mine, too")
    save_as_run(bench, run, SECOND)
    assert set(get(bench, run).kept) == {"ckpt", "model"}
    assert (folder / "ckpt").read_text() == "mine"
    assert read_tree(folder / "model") == {"weights": b"one", "deep/x": b"x", "deep/mine": b"mine, too"}
    assert (folder / "new").read_text() == "n"
    # Nothing is ever written through a link that the user has made.
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "linked").symlink_to(elsewhere)
    save_as_run(bench, run, {"linked/f": b"f"})
    assert get(bench, run).kept == ("linked",)
    assert read_tree(elsewhere) == {}


def test_outputs_a_thousand_folders_deep(bench: Bench) -> None:
    bench.script(
        """
        import os
        for name in ("AMLCTL_OUTPUTS_DIR", "AMLCTL_DATA_BLOBS_DIR"):
            os.chdir(os.environ[name])
            for _ in range(1_100):
                os.mkdir("d")
                os.chdir("d")
            open("file", "w").write("x")
        """
    )
    run = bench.submit("train.py", fetch_outputs=False).record.run
    path = "/".join([*["d"] * 1_100, "file"])
    assert get(bench, run).files == 1
    assert os.path.getsize(f"{bench.project.outputs_dir}/{run}/{path}") == 1
    save_as_run(bench, run, {"d": b"a file now"})
    assert get(bench, run).kept == ()
    assert (bench.project.outputs_dir / run / "d").read_bytes() == b"a file now"
    close_to_others(bench.project.state_dir, bench.project.state_dir / "store")
    bench.workspace.delete(run)
    assert not (bench.project.state_dir / "runs" / run).exists()


def test_an_edit_during_the_download_is_kept(bench: Bench, run: str) -> None:
    folder = bench.project.outputs_dir / run
    save_as_run(bench, run, FIRST)
    get(bench, run)
    save_as_run(bench, run, {**FIRST, "grows": b"gg", "ckpt": b"2"})

    def edit(call: Call) -> None:
        if call.method == "download" and call.key.endswith("/grows"):
            (folder / "grows").write_text("edited")

    result = fetch(replace(bench, store=FaultyStore(bench.store, edit)), run)
    assert result.kept == ("grows",)
    assert ((folder / "grows").read_text(), (folder / "ckpt").read_text()) == ("edited", "2")


def test_a_fetch_leaves_the_temporary_files_of_others_alone(bench: Bench, run: str) -> None:
    folder = bench.project.outputs_dir / run
    folder.mkdir(parents=True)
    theirs = folder / temporary_name()  # of this process, which lives
    theirs.write_text("half")
    get(bench, run)
    assert theirs.read_text() == "half"


@pytest.mark.parametrize("has_edit", [False, True])
def test_a_fetch_that_is_killed_leaves_nothing_that_looks_like_the_users(
    bench: Bench, run: str, tmp_path: Path, warm: WarmCommand, has_edit: bool
) -> None:
    folder = bench.project.outputs_dir / run
    save_as_run(bench, run, FIRST)
    shutil.rmtree(folder, ignore_errors=True)
    get(bench, run)
    kept = tmp_path / "kept"
    wait_until_tidied(bench)
    shutil.copytree(bench.project.root, kept, symlinks=True)
    for number in range(1, 200):
        save_as_run(bench, run, SECOND)
        code = warm.program("tests.support.dying_fetch", bench.project.root, run, number)
        if has_edit:
            (folder / "same").write_text("edited")
        save_as_run(bench, run, {**SECOND, "grows": b"ggg", "same": b"other", "ckpt/a": b"3"})
        result = get(bench, run)
        expected = {**SECOND, "grows": b"ggg", "same": b"edited" if has_edit else b"other", "ckpt/a": b"3"}
        assert (read_tree(folder), result.kept) == (expected, ("same",) if has_edit else ()), number
        shutil.rmtree(bench.project.root)
        shutil.copytree(kept, bench.project.root, symlinks=True)
        if code == 0:
            break
        assert code == DIED
    assert number > 20


def test_damaged_notes_of_a_fetch_count_as_none(bench: Bench, run: str) -> None:
    save_as_run(bench, run, FIRST)
    state = bench.project.state_dir / "runs" / run / "fetched.json"
    for damaged in ('{"format": 2}', '{"format": 2, "folders": []}', '{"format": 2, "folders": {"x": 1}}', "[]", "{"):
        get(bench, run)
        state.write_text(damaged)
        assert get(bench, run).kept == (), damaged


def test_a_project_that_was_moved_still_knows_what_it_has_fetched(bench: Bench, run: str, tmp_path: Path) -> None:
    save_as_run(bench, run, FIRST)
    get(bench, run)
    moved = open_bench(bench.project.root.rename(tmp_path / "moved"))
    save_as_run(moved, run, SECOND)
    assert get(moved, run).kept == ()
    found = read_tree(moved.project.outputs_dir / run)
    assert {path: data for path, data in found.items() if path in SECOND} == SECOND
    moved.project.root.rename(bench.project.root)


def test_times_keep_their_order(bench: Bench) -> None:
    bench.script(
        """
        import os, time
        for step in (900, 100, 1000):
            open(os.path.join(os.environ["AMLCTL_OUTPUTS_DIR"], f"checkpoint-{step}"), "w").write("x")
            time.sleep(0.02)
        """
    )
    run = bench.submit("train.py").record.run
    found = sorted((bench.project.outputs_dir / run).iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert [path.name for path in found] == ["checkpoint-900", "checkpoint-100", "checkpoint-1000"]


def test_logs_go_beside_outputs_of_that_name(bench: Bench) -> None:
    bench.script(
        """
        import os, pathlib, sys
        out = pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"])
        if sys.argv[1:]:
            (out / "logs").write_text("a file")
        else:
            (out / "logs").mkdir()
            (out / "logs/std_log.txt").write_text("the script's own")
        print("printed")
        """
    )
    for arguments, path, text in (((), "logs/std_log.txt", "the script's own"), (("file",), "logs", "a file")):
        run = bench.submit("train.py", arguments=arguments).record.run
        folder = bench.project.outputs_dir / run
        for _ in range(2):
            assert get(bench, run, with_logs=True).kept == ()
        assert (folder / path).read_text() == text
        assert "printed" in (folder / "amlctl-logs/std_log.txt").read_text()
    (folder / "amlctl-logs/std_log.txt").write_text("edited")
    assert get(bench, run, with_logs=True).kept == ("amlctl-logs/std_log.txt",)


def test_outputs_of_further_nodes_go_beside_folders_of_that_name(bench: Bench) -> None:
    bench.script(
        """
        import os, pathlib
        out, rank = pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"]), os.environ["RANK"]
        for name in ("rank-0", "rank-1", "logs"):
            (out / name).mkdir()
            (out / name / "f").write_text(f"{name} of {rank}")
        """
    )
    run = bench.submit("train.py", instances=2).record.run
    names = ("rank-0", "rank-1", "logs")
    expected = {f"{name}/f": f"{name} of 0".encode() for name in names}
    expected |= {f"amlctl-rank-1/{name}/f": f"{name} of 1".encode() for name in names}
    assert read_tree(bench.project.outputs_dir / run) == expected


def test_a_lost_or_damaged_list_of_outputs_is_reported(bench: Bench, run: str, tmp_path: Path) -> None:
    key = outputs_index_key(run)
    for data in (b"", b"{", None):
        bench.store.delete(key) if data is None else bench.store.put(key, data, replace=True)
        with pytest.raises(IntegrityError, match=r"outputs\.json .*the store still has 5 files") as raised:
            get(bench, run, to=tmp_path / "none")
        assert set(raised.value.details) == ALL
        assert raised.value.hint == f"amlctl fetch --unlisted {run}"
        assert read_tree(tmp_path / "none") == {}
    result = get(bench, run, to=tmp_path / "all", is_unlisted=True)
    assert (result.files, result.downloaded_files) == (5, 5)
    assert set(read_tree(tmp_path / "all")) == ALL
    for entry in list(bench.store.list(outputs_prefix(run))):
        bench.store.delete(entry.key)
    with pytest.raises(IntegrityError, match="the store has no outputs of it"):
        get(bench, run)


def test_folders_that_a_mount_has_made_are_not_outputs() -> None:
    store = MemoryStore(time.time)
    for path in ("graphs", "graphs/deep", "graphs/deep/a.png", "empty"):
        store.put(f"{outputs_prefix('r')}{path}", b"1" if path.endswith(".png") else b"")
    assert [file.path for file in unlisted_outputs(store, outputs_prefix("r"))] == ["empty", "graphs/deep/a.png"]


def test_the_other_nodes_are_fetched_where_one_list_is_damaged(bench: Bench) -> None:
    bench.script("import os; open(os.environ['AMLCTL_OUTPUTS_DIR'] + '/f', 'w').write(os.environ['RANK'])")
    run = bench.submit("train.py", instances=2, fetch_outputs=False).record.run
    bench.store.put(outputs_index_key(run), b"{", replace=True)
    with pytest.raises(IntegrityError):
        get(bench, run)
    folder = bench.project.outputs_dir / run
    assert read_tree(folder) == {"rank-1/f": b"1"}
    TreeSaver(bench.store, folder / "rank-1", outputs_tree(run)).save()  # a whole list again
    shutil.rmtree(folder)
    write_tree(folder, {"rank-1": b"mine"})
    assert get(bench, run).kept == ("rank-1",)
    assert read_tree(folder) == {"rank-1": b"mine", "f": b"1"}


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.png", "a/b.png", True),
        ("a/*.png", "a/b.png", True),
        ("**/b.png", "b.png", True),
        ("a/**/c", "a/c", True),
        ("a/**/c", "a/b/c", True),
        ("a", "a/b/c", True),
        ("./a/", "a/b", True),
        ("a", "ab/c", False),
        ("*.PNG", "b.png", False),
        ("b.png", "a/b.png", False),
    ],
)
def test_globs(pattern: str, path: str, expected: bool) -> None:
    assert path_filter([pattern])(path) is expected
