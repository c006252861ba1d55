from __future__ import annotations

from pathlib import Path

import pytest

from amlctl.core.events import Warned
from amlctl.errors import IntegrityError, NotFound, UsageError
from amlctl.operations.fetch import FetchResult, fetch, path_filter
from amlctl.runtime.run_keys import outputs_index_key
from tests.support.bench import Bench, wait_until
from tests.support.trees import read_tree

WRITES = """
    import os, pathlib
    out = pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"])
    for name in ("metrics.json", "graphs/loss.png", "graphs/deep/a b.png", "model/weights.pt", "model/empty"):
        out.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        out.joinpath(name).write_text("" if name.endswith("empty") else name)
    print("log line")
"""
ALL = {"metrics.json", "graphs/loss.png", "graphs/deep/a b.png", "model/weights.pt", "model/empty"}


@pytest.fixture
def run(bench: Bench) -> str:
    bench.script(WRITES)
    return bench.submit("train.py", fetch_outputs=False).record.run


def get(bench: Bench, run: str, **more: object) -> FetchResult:
    return fetch(bench.project, bench.store, bench.workspace, run, sink=bench.events.append, **more)  # type: ignore[arg-type]


def test_only_what_is_missing_is_brought(bench: Bench, run: str) -> None:
    first = get(bench, run)
    folder = bench.project.outputs_dir / run
    assert set(read_tree(folder)) == ALL
    assert (first.to, first.files, first.downloaded_files) == (f"outputs/{run}", 5, 5)
    assert first.bytes == first.downloaded_bytes == sum(len(name) for name in ALL if not name.endswith("empty"))
    again = get(bench, run)
    assert (again.files, again.downloaded_files, again.downloaded_bytes) == (5, 0, 0)
    (folder / "metrics.json").unlink()
    (folder / "mine.txt").write_text("stays")
    assert get(bench, run).downloaded_files == 1
    assert (folder / "mine.txt").read_text() == "stays"


def test_what_was_changed_here_is_kept_and_told(bench: Bench, run: str, tmp_path: Path) -> None:
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
    told = bench.told(Warned)[-1].message
    assert "graphs/loss.png, metrics.json" in told
    assert f"amlctl fetch --to FOLDER {run}" in told
    assert get(bench, run, to=tmp_path / "fresh").kept == ()


def test_what_the_run_has_written_anew_replaces_what_was_fetched(bench: Bench) -> None:
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
    assert not bench.told(Warned)


def test_a_lost_list_is_not_taken_for_no_outputs(bench: Bench, run: str) -> None:
    key = outputs_index_key(run)
    data = bench.store.get(key)
    bench.store.delete(key)
    with pytest.raises(IntegrityError, match="list of what run") as caught:
        get(bench, run)
    assert f"amlctl submit --from {run}" in caught.value.hint
    bench.store.put(key, b'{"files": 7}')
    with pytest.raises(IntegrityError, match="cannot be read"):
        get(bench, run)
    bench.store.put(key, data, replace=True)
    assert get(bench, run).files == 5


def test_a_run_without_outputs_has_nothing_to_fetch(bench: Bench) -> None:
    bench.script("print(1)")
    run = bench.submit("train.py", fetch_outputs=False).record.run
    assert get(bench, run).files == 0


def test_include_brings_what_matches(bench: Bench, run: str, tmp_path: Path) -> None:
    target = tmp_path / "else where"
    result = get(bench, run, to=target, include=("*.png", "model/"))
    assert set(read_tree(target)) == ALL - {"metrics.json"}
    assert result.to == str(target)
    get(bench, run, to=tmp_path / "none", include=("*.gif",))
    assert any("*.gif" in event.message for event in bench.told(Warned))


def test_logs_come_along_when_asked_for(bench: Bench, run: str) -> None:
    result = get(bench, run, with_logs=True)
    folder = bench.project.outputs_dir / run
    (log,) = (folder / "logs").iterdir()
    assert "log line" in log.read_text()
    assert result.files == 6
    assert get(bench, run, with_logs=True).downloaded_files == 0


def test_a_run_that_goes_on_can_be_fetched(bench: Bench) -> None:
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
