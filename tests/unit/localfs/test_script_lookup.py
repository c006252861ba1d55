from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from amlctl.errors import NotFound, UsageError
from amlctl.localfs.code_rules import code_rules
from amlctl.localfs.project import Project
from amlctl.localfs.script_lookup import find_config, find_script, walk_files

FILES = (
    "pipeline/train.py",
    "pipeline/image/model_train.py",
    "pipeline/image/configs/baseline.json",
    "pipeline/image/beside.yaml",
    "pipeline/sound/model_train.py",
    "pipeline/sound/deep/er/preprocess.py",
    "pipeline/sound/deep/er/only.json",
    "pipeline/sound/notes.txt",
    "pipeline/a b/ünï.py",
    "pipeline/__pycache__/cached.py",
    "pipeline/.hidden/hidden.py",
    "pipeline/wandb/ignored.py",
    "outside.py",
    "elsewhere.json",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in FILES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    (tmp_path / ".gitignore").write_text("wandb/\n")
    return tmp_path


def script(root: Path, text: str, cwd: str = ".") -> str:
    found = find_script(Project(root), text, cwd=root / cwd, rules=code_rules(Project(root)))
    return found.relative_to(root).as_posix()


def config(root: Path, text: str, script_path: str = "pipeline/image/model_train.py", cwd: str = ".") -> str:
    project = Project(root)
    rules = partial(code_rules, project)
    found = find_config(project, text, cwd=root / cwd, script=root / script_path, rules=rules)
    return found.relative_to(root).as_posix()


@pytest.mark.parametrize(
    ("text", "cwd", "expected"),
    [
        ("pipeline/image/model_train.py", ".", "pipeline/image/model_train.py"),
        ("image/model_train.py", ".", "pipeline/image/model_train.py"),
        ("pipeline/image/model_train.py", "pipeline/sound", "pipeline/image/model_train.py"),
        ("model_train.py", "pipeline/sound", "pipeline/sound/model_train.py"),
        ("../image/model_train.py", "pipeline/sound", "pipeline/image/model_train.py"),
        ("preprocess.py", ".", "pipeline/sound/deep/er/preprocess.py"),
        ("er/preprocess.py", ".", "pipeline/sound/deep/er/preprocess.py"),
        ("ünï.py", ".", "pipeline/a b/ünï.py"),
        ("train.py", ".", "pipeline/train.py"),
    ],
)
def test_a_script_is_found_by_path_or_by_name(root: Path, text: str, cwd: str, expected: str) -> None:
    assert script(root, text, cwd) == expected


def test_an_absolute_path_is_taken_also_through_a_link(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    link = tmp_path_factory.mktemp("links") / "project"
    link.symlink_to(root)
    for path in (root, link):
        assert script(root, str(path / "pipeline/train.py")) == "pipeline/train.py"
        assert config(root, str(path / "elsewhere.json")) == "elsewhere.json"


def test_an_ambiguous_name_lists_all(root: Path) -> None:
    with pytest.raises(UsageError) as caught:
        script(root, "model_train.py")
    assert list(caught.value.details) == ["pipeline/image/model_train.py", "pipeline/sound/model_train.py"]


def test_a_name_at_the_top_is_equally_ambiguous(root: Path) -> None:
    (root / "pipeline/sound/train.py").touch()
    with pytest.raises(UsageError) as caught:
        script(root, "train.py")
    assert len(caught.value.details) == 2


def test_an_unknown_script_shows_the_nearest_names(root: Path) -> None:
    with pytest.raises(NotFound) as caught:
        script(root, "modle_train.py")
    assert "model_train.py" in caught.value.hint
    with pytest.raises(NotFound) as caught:
        script(root, "preprocess")
    assert caught.value.hint == "did you mean preprocess.py?"
    assert list(caught.value.details) == ["pipeline/sound/deep/er/preprocess.py"]
    for text in ("model_train", "image/model_train", "Model_train.py"):  # two have that name
        with pytest.raises(NotFound) as caught:
            script(root, text)
        assert caught.value.hint == "did you mean pipeline/image/model_train.py?"


@pytest.mark.parametrize("text", ["predict.py", "nosuch.py", "smoke.py"])
def test_names_that_only_end_alike_are_not_suggested(root: Path, text: str) -> None:
    with pytest.raises(NotFound) as caught:
        script(root, text)
    assert caught.value.hint.startswith("available: pipeline/")


def test_a_folder_names_a_script_in_it(root: Path) -> None:
    with pytest.raises(UsageError) as caught:
        script(root, "pipeline/sound")
    assert caught.value.hint.startswith("amlctl submit pipeline/sound/")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("outside.py", "not under pipeline/"),
        ("notes.txt", "not a Python script"),
        ("pipeline/sound", "folder"),
        ("pipeline/wandb/ignored.py", "ignored"),
        ("", "No script"),
    ],
)
def test_what_cannot_be_a_script(root: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        script(root, text)
    assert words in caught.value.message


@pytest.mark.parametrize("text", ["ignored.py", "cached.py", "hidden.py"])
def test_ignored_and_hidden_folders_are_not_searched(root: Path, text: str) -> None:
    with pytest.raises(NotFound):
        script(root, text)


def test_the_rule_that_ignores_a_script_is_named(root: Path) -> None:
    with pytest.raises(UsageError) as caught:
        script(root, "pipeline/wandb/ignored.py")
    assert "wandb/" in caught.value.hint
    assert ".gitignore:1" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("elsewhere.json", "elsewhere.json"),
        ("beside.yaml", "pipeline/image/beside.yaml"),
        ("baseline.json", "pipeline/image/configs/baseline.json"),
        ("configs/baseline.json", "pipeline/image/configs/baseline.json"),
        ("only.json", "pipeline/sound/deep/er/only.json"),
    ],
)
def test_a_config_is_looked_for_near_the_script_first(root: Path, text: str, expected: str) -> None:
    assert config(root, text) == expected


def test_a_config_that_is_not_there(root: Path) -> None:
    with pytest.raises(NotFound) as caught:
        config(root, "base_line.json")
    assert "baseline.json" in caught.value.hint
    with pytest.raises(NotFound):
        config(root, "ignored.json")


def test_an_ambiguous_config_lists_all(root: Path) -> None:
    (root / "pipeline/sound/configs").mkdir()
    (root / "pipeline/sound/configs/baseline.json").write_text("{}")
    assert config(root, "baseline.json") == "pipeline/image/configs/baseline.json"
    with pytest.raises(UsageError) as caught:
        config(root, "baseline.json", "pipeline/train.py")
    assert len(caught.value.details) == 2


def test_walking_is_in_order_of_path(root: Path) -> None:
    pipeline = root / "pipeline"
    names = [path.relative_to(pipeline).as_posix() for path in walk_files(pipeline, code_rules(Project(root)))]
    assert len(names) == 9
    assert "wandb/ignored.py" not in names
