"""Why a path is synced or not, and where its bytes are."""

from __future__ import annotations

from pathlib import Path

import pytest

from amlctl.core.settings import Settings, SyncSettings
from amlctl.errors import NotFound
from amlctl.operations.why import Why, why
from tests.support.clones import DATASET, Clone, Clones
from tests.support.context import Context

TREE = {f"d/f{n}": b"%d" % n * 50 for n in range(10)} | {
    "large": b"L" * 9_000,
    "d/cache/x": b"c",
    "d/a.tmp": b"t",
    "d/keep.tmp": b"k",
    ".amlctlignore": b"# scratch\n*.tmp\ncache/\n",
    "d/.amlctlignore": b"!keep.tmp\n",
}


@pytest.fixture
def one(tmp_path: Path) -> Clone:
    clone = Clones(tmp_path)["one"]
    clone.make(TREE)
    return clone


def _why(clone: Clone, path: str) -> Why:
    return why(
        Context(clone.project, clone.store, settings=Settings(sync=SyncSettings(ignore=("*.bak",)))), clone.root / path
    )


@pytest.mark.parametrize("is_synced", [False, True])
@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("d/a.tmp", (True, "*.tmp", ".amlctlignore", 2)),
        ("d/cache/x", (True, "cache/", ".amlctlignore", 3)),
        ("d/keep.tmp", (False, "!keep.tmp", "d/.amlctlignore", 1)),
        ("d/f1", (False, None, None, None)),
    ],
)
def test_the_deciding_rule(one: Clone, is_synced: bool, path: str, expected: tuple[object, ...]) -> None:
    if is_synced:
        one.sync()
    found = _why(one, path)
    file = found.rule_file if found.rule_file is None else found.rule_file.removeprefix(f"{DATASET}/")
    assert (found.is_ignored, found.rule, file, found.rule_line) == expected


@pytest.mark.parametrize("is_synced", [False, True])
def test_sync_and_why_agree_on_ignore_files_above_the_dataset(one: Clone, is_synced: bool) -> None:
    one.project.data_blobs_dir.joinpath(".amlctlignore").write_text("large\nworking/x/d/f1\n/d/f2\n")
    one.project.data_blobs_dir.joinpath("working/.amlctlignore").write_text("f[34]\n!f4\n")
    expected = {
        "large": (True, "large", ".amlctlignore", 1),
        "d/f1": (True, "working/x/d/f1", ".amlctlignore", 2),
        "d/f2": (False, None, None, None),
        "d/f3": (True, "f[34]", "working/.amlctlignore", 1),
        "d/f4": (False, "!f4", "working/.amlctlignore", 2),
    }
    if is_synced:
        one.sync()
    reported = {path: _why(one, path) for path in expected}
    assert {path: (w.is_ignored, w.rule, w.rule_file, w.rule_line) for path, w in reported.items()} == expected
    one.sync()
    stored = Clones(one.project.root.parent).stored()
    assert stored is not None
    assert {path for path in expected if path in stored} == {path for path, w in reported.items() if not w.is_ignored}


def test_a_rule_of_the_settings(one: Clone) -> None:
    (one.root / "x.bak").write_bytes(b"1")
    found = _why(one, "x.bak")
    assert (found.is_ignored, found.rule, found.rule_file) == (True, "*.bak", ".amlctl.toml [sync] ignore")


def test_where_the_bytes_are(one: Clone) -> None:
    result = one.sync()
    for path, folder in (("d/f1", "packs/"), ("large", "objects/")):
        found = _why(one, path)
        assert (found.dataset, found.snapshot) == (DATASET, result.snapshot)
        assert found.place is not None
        assert found.place.startswith(folder)
        assert one.store.info(found.place) is not None


def test_a_deleted_file_is_found_in_the_store(one: Clone) -> None:
    one.sync()
    (one.root / "d/f1").unlink()
    assert _why(one, "d/f1").place is not None


def test_a_folder_belongs_to_its_dataset(one: Clone) -> None:
    result = one.sync()
    for path in ("d", "."):
        found = _why(one, path)
        assert (found.is_ignored, found.dataset, found.snapshot, found.place) == (False, DATASET, result.snapshot, None)


@pytest.mark.parametrize("is_synced", [False, True])
def test_what_is_nowhere_is_not_found(one: Clone, is_synced: bool) -> None:
    if is_synced:
        one.sync()
    with pytest.raises(NotFound):
        _why(one, "no/such")
    with pytest.raises(NotFound, match="pipeline/ and data_blobs/"):
        why(one, one.project.root / "README")


def test_the_file_here_against_the_one_in_the_store(one: Clone) -> None:
    assert _why(one, "d/f1").state is None
    one.sync()
    (one.root / "d/f1").write_bytes(b"of another size")
    (one.root / "d/f2").write_bytes(bytes(len(TREE["d/f2"])))
    (one.root / "d/f3").unlink()
    (one.root / "d/later").write_bytes(b"1")
    found = {name: _why(one, f"d/{name}").state for name in ("f1", "f2", "f3", "f4", "later")}
    assert found == {"f1": "modified", "f2": "modified", "f3": "deleted", "f4": "synced", "later": "new"}
