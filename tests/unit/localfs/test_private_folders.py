"""What amlctl keeps for itself is the user's alone, whatever the umask."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from amlctl.localfs.atomic import write_bytes, write_json
from amlctl.localfs.folders import close_to_others, make_private_folder
from amlctl.localfs.identify import CachedScan, StatCache
from amlctl.localfs.project import Project
from amlctl.localfs.regular_file import open_regular
from tests.support.bench import make_bench


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def _ignore(warning: str) -> None:
    """It is not about them."""


def wide(folder: Path, but: str = "store") -> list[str]:
    """What others may enter, read or write below the folder, and the folder itself."""
    found = []
    for above, names, files in os.walk(folder):
        names[:] = [name for name in names if os.path.join(above, name) != str(folder / but)]
        for path in (Path(above), *(Path(above, name) for name in files)):
            if not path.is_symlink() and path.stat().st_mode & 0o077:
                found.append(f"{path.relative_to(folder)} {stat.filemode(path.stat().st_mode)}")
    return found


def test_files_and_folders_are_private_from_the_first_moment(tmp_path: Path, umask: int) -> None:
    project = Project(tmp_path)
    state = project.ensure_state_dir()
    make_private_folder(state / "a" / "b")
    write_json(state / "c" / "d" / "e.json", {})
    with open_regular(state / "log", "ab") as file:
        file.write(b"x")
    with closing(StatCache(state / "cache.sqlite", _ignore)) as cache:
        cache.remember_scan("x", CachedScan(b"digest", "snapshot", 3, 300))
        assert wide(state) == []
    assert wide(state) == []
    write_bytes(tmp_path / "shared" / "x", b"", mode=0o644)
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o777 & ~umask


def test_a_journal_is_as_private_as_its_database(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = tmp_path / "cache.sqlite"
        with closing(StatCache(path, _ignore)) as cache:
            cache._database._database.execute("BEGIN IMMEDIATE")
            cache._database._database.execute("CREATE TABLE more (x)")
            modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
            cache._database._database.execute("ROLLBACK")
        assert set(modes.values()) == {0o600}
    finally:
        os.umask(before)


def test_a_run_leaves_nothing_open_to_others(tmp_path: Path) -> None:
    bench = make_bench(tmp_path / "a project")
    before = os.umask(0)
    try:
        bench.script("print('done')")
        run = bench.submit("train.py", tags={"a": "b"}).record
        assert run.status == "Completed"
        bench.workspace.delete(bench.submit("train.py").record.run)
    finally:
        os.umask(before)
    assert wide(bench.project.state_dir) == []


def test_what_is_open_already_is_narrowed_but_not_the_store(tmp_path: Path) -> None:
    project = Project(tmp_path)
    state = project.state_dir
    for folder in (state / "runs" / "r", state / "store" / "packs", state / "x" / "store"):
        folder.mkdir(parents=True, mode=0o755)
        (folder / "file").write_bytes(b"")
        (folder / "program").write_bytes(b"")
        (folder / "program").chmod(0o755)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"")
    elsewhere.chmod(0o644)
    (state / "link").symlink_to(elsewhere)
    project.tidy_state()
    assert wide(state) == []
    assert (state / "runs/r/program").stat().st_mode & 0o777 == 0o700
    assert (state / "store/packs/file").stat().st_mode & 0o777 == 0o644
    assert elsewhere.stat().st_mode & 0o777 == 0o644


def test_narrowing_continues_after_what_cannot_be_changed(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"")
    close_to_others(tmp_path, but=tmp_path / "store")
    assert wide(tmp_path) == []
