from __future__ import annotations

import os
from pathlib import Path

import pytest

from amlctl.errors import NotFound, RightsError, SettingsError, UsageError
from amlctl.localfs.project import Project, find_project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root = tmp_path / "project"
    for folder in ("data_blobs/working/x/y", "data_blobs/raw", "pipeline/working", "outputs"):
        (root / folder).mkdir(parents=True)
    (root / ".amlctl.toml").touch()
    return Project(root)


def test_the_nearest_project_above_is_found(project: Project) -> None:
    inner = project.root / "pipeline" / "inner"
    (inner / "deep").mkdir(parents=True)
    assert find_project(inner / "deep") == project
    (inner / ".amlctl.toml").touch()
    assert find_project(inner / "deep") == Project(inner)
    assert find_project(project.root) == project


def test_the_root_is_absolute(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root / "pipeline")
    assert find_project(Path("..")).root == project.root


@pytest.mark.parametrize("kind", ["folder", "link to nowhere"])
def test_settings_that_are_not_a_file(tmp_path: Path, kind: str) -> None:
    settings = tmp_path / ".amlctl.toml"
    settings.mkdir() if kind == "folder" else settings.symlink_to("nowhere")
    with pytest.raises(SettingsError, match="folder" if kind == "folder" else "link"):
        find_project(tmp_path)


def test_no_project(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        find_project(tmp_path)
    assert str(caught.value.hint).endswith("set one up here: amlctl init")
    with pytest.raises(NotFound, match="nowhere"):
        find_project(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("path", "cwd", "dataset"),
    [
        ("data_blobs/working/x", "", "working/x"),
        ("data_blobs/working/x/", "", "working/x"),
        ("./data_blobs//working/./x/y/..", "", "working/x"),
        ("working/x", "", "working/x"),
        ("x", "data_blobs/working", "working/x"),
        (".", "data_blobs/working/x", "working/x"),
        ("../../raw", "data_blobs/working/x", "raw"),
        ("working/x", "data_blobs/working", "working/x"),
        ("data_blobs/working/x", "pipeline", "working/x"),
        ("data_blobs/working/x", "data_blobs/raw", "working/x"),
        ("working/x", "pipeline", "working/x"),
        ("../data_blobs/raw", "pipeline", "raw"),
        ("working/new", "", "working/new"),
        ("data_blobs/working/new", "", "working/new"),
        ("new", "data_blobs/working", "working/new"),
        ("working/a b/é", "", "working/a b/é"),
        (os.fsdecode(b"working/\xff"), "", os.fsdecode(b"working/\xff")),
    ],
)
def test_a_typed_path_names_a_dataset(project: Project, path: str, cwd: str, dataset: str) -> None:
    assert project.dataset_name(path, project.root / cwd) == dataset


def test_an_absolute_path_names_a_dataset(project: Project) -> None:
    assert project.dataset_name(str(project.dataset_path("working/x")), Path("/")) == "working/x"


@pytest.mark.parametrize(
    ("path", "cwd"),
    [
        *[("pipeline", ""), ("pipeline/working", ""), ("..", ""), ("../elsewhere", ""), ("/etc", ""), ("", "")],
        *[("data_blobs", ""), ("data_blobs/", ""), (".", "data_blobs"), (".", ""), ("..", "data_blobs/working")],
        *[("data_blobs/../pipeline", ""), ("working/../../outputs", ""), ("outputs", "")],
    ],
)
def test_other_paths_are_not_datasets(project: Project, path: str, cwd: str) -> None:
    with pytest.raises(UsageError) as caught:
        project.dataset_name(path, project.root / cwd)
    assert "data_blobs" in caught.value.message


def test_links_in_the_path_are_kept(project: Project, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    (project.data_blobs_dir / "linked").symlink_to(tmp_path / "large")
    assert project.dataset_name("data_blobs/linked", project.root) == "linked"


def test_the_same_folder_by_another_name(project: Project, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(project.root)
    assert project.dataset_name(str(tmp_path / "alias" / "data_blobs" / "raw"), tmp_path) == "raw"
    assert project.typed_path(str(tmp_path / "alias" / "pipeline" / "x"), tmp_path) == project.pipeline_dir / "x"
    moved = tmp_path / "disk"
    project.data_blobs_dir.rename(moved)
    project.data_blobs_dir.symlink_to(moved)
    assert project.dataset_name("x", moved / "working") == "working/x"
    assert project.dataset_name("data_blobs/working/x", project.root) == "working/x"


def test_local_state_is_kept_out_of_git(project: Project) -> None:
    assert project.ensure_state_dir() == project.root / ".amlctl"
    ignore_file = project.state_dir / ".gitignore"
    assert ignore_file.read_text() == "*\n"
    ignore_file.write_text("*\n!keep\n")
    project.ensure_state_dir()
    assert ignore_file.read_text() == "*\n!keep\n"


def test_local_state_that_cannot_be_made(project: Project) -> None:
    project.state_dir.write_text("")
    with pytest.raises(RightsError, match=r"\.amlctl"):
        project.ensure_state_dir()


@pytest.mark.parametrize(
    ("path", "cwd", "meant"),
    [
        ("data_blobs/working/x", "", "data_blobs/working/x"),
        ("working/x", "", "data_blobs/working/x"),
        ("working/x/gone", "", "data_blobs/working/x/gone"),
        ("x/gone", "data_blobs/working", "data_blobs/working/x/gone"),
        ("data_blobs/working/x", "pipeline", "data_blobs/working/x"),
        ("pipeline/gone.py", "", "pipeline/gone.py"),
        ("outputs", "", "outputs"),
    ],
)
def test_what_a_typed_path_means(project: Project, path: str, cwd: str, meant: str) -> None:
    (project.data_blobs_dir / "working/x").mkdir(parents=True, exist_ok=True)
    project.outputs_dir.mkdir(exist_ok=True)
    assert project.typed_path(path, project.root / cwd) == project.root / meant
    assert project.typed_path("/etc/none", project.root) == Path("/etc/none")
