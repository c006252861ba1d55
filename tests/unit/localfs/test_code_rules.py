"""What belongs to a code snapshot: what Git ignores does not, compared with the real `git check-ignore`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from amlctl.localfs.code_rules import CodeRules, code_rules, job_code_rules
from amlctl.localfs.project import Project
from amlctl.localfs.scan import scan, unpack_names

PROJECT = "some/ml"


@pytest.fixture
def git_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's Git settings, without the machine's."""
    home = tmp_path / "home"
    home.mkdir()
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return home


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def write(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def sent(rules: CodeRules, pipeline: Path) -> list[str]:
    found = scan(pipeline, rules)
    assert not found.warnings
    assert not found.unreadable
    return sorted(
        f"{folder.path}/{name}" if folder.path else name
        for folder in found.folders
        for name in unpack_names(folder.rows)
    )


def decided(rules: CodeRules, pipeline: Path, path: str) -> tuple[str, str, int] | None:
    """The rule for a path below `pipeline`, by its pattern, file and line: from the top down, as a walk does it."""
    parts = path.split("/")
    for depth, part in enumerate(parts):
        folder = "/".join(parts[:depth])
        names = os.listdir(pipeline / folder) if (pipeline / folder).is_dir() else []
        is_ignored, rule = rules.enter(folder, names).decide(part, (pipeline / folder / part).is_dir())
        if is_ignored or depth == len(parts) - 1:
            return None if rule is None else (rule.pattern, rule.source, rule.line)
    raise AssertionError("a path has parts")


PATTERN = st.text(alphabet="ab/*?[]!^-\\ .#", max_size=7)
LINES = st.lists(PATTERN, max_size=3).map("\n".join)
NAME = st.text(alphabet="ab.-", min_size=1, max_size=2).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(st.lists(NAME, min_size=1, max_size=3).map("/".join), min_size=1, max_size=15, unique=True)


@settings(max_examples=60)
@given(
    files=st.fixed_dictionaries(
        {
            ".gitignore": LINES,
            "some/.gitignore": LINES,
            "some/ml/.gitignore": LINES,
            "some/ml/pipeline/.gitignore": LINES,
            "some/ml/pipeline/a/.gitignore": LINES,
        }
    ),
    exclude=LINES,
    of_user=LINES,
    paths=PATHS,
    is_worktree=st.booleans(),
)
def test_any_files_of_any_level_decide_as_git_does(
    tmp_path: Path,
    git_home: Path,
    files: Mapping[str, str],
    exclude: str,
    of_user: str,
    paths: list[str],
    is_worktree: bool,
) -> None:
    shutil.rmtree(tmp_path / "work", ignore_errors=True)
    top = tmp_path / "work" / "repo"
    top.mkdir(parents=True)
    git(top, "init", "-q", ".")
    (top / ".git/info/exclude").write_text(exclude, encoding="utf-8")
    write(git_home, {".config/git/ignore": of_user})
    if is_worktree:
        git(top, "commit", "-q", "--allow-empty", "-m", "first")
        git(top, "worktree", "add", "-q", "--detach", "../tree")
        top = top.parent / "tree"
    write(top, files)
    pipeline = top / PROJECT / "pipeline"
    for path in paths:
        try:
            write(pipeline, {path: ""})
        except OSError:  # a file is where a folder should be
            continue
    there = [path.relative_to(pipeline).as_posix() for path in sorted(pipeline.rglob("*"))]
    names = {f"{PROJECT}/pipeline/{path}": path for path in there}
    answers = _git_decides(top, [PROJECT, f"{PROJECT}/pipeline", *names])
    answers.pop(PROJECT, None)
    above = answers.pop(f"{PROJECT}/pipeline", None)
    assume(above is None or above[0].startswith("!"))

    rules = code_rules(Project(top / PROJECT))
    for shown, path in names.items():
        found = decided(rules, pipeline, path)
        wanted = answers.get(shown)
        assert (found is None) == (wanted is None), (path, found, wanted)
        if found is not None and wanted is not None:
            assert (found[0], Path(found[1]).name, found[2]) == wanted, path


def _git_decides(top: Path, names: Iterable[str]) -> dict[str, tuple[str, str, int]]:
    """The pattern, the name of the file and the line, for each path that a rule matches."""
    answer = subprocess.run(
        ["git", "check-ignore", "-z", "-v", "-n", "--no-index", "--stdin"],
        cwd=top,
        input=b"".join(b"%s\0" % os.fsencode(name) for name in names),
        stdout=subprocess.PIPE,
        check=False,
    ).stdout
    fields = [os.fsdecode(field) for field in answer.split(b"\0")[:-1]]
    return {
        path: (pattern, Path(source).name, int(line))
        for source, line, pattern, path in zip(*[iter(fields)] * 4, strict=True)
        if source
    }


def test_what_git_ignores_above_the_project_is_not_sent(tmp_path: Path, git_home: Path) -> None:
    git(tmp_path, "init", "-q", "repo")
    top = tmp_path / "repo"
    (top / ".git/info/exclude").write_text("private.py\n")
    write(git_home, {"my ignores": "*.swp\n", ".gitconfig": '[core]\n\texcludesFile = "~/my ignores"\n'})
    write(top, {".gitignore": "*.ckpt\n/ml/pipeline/local.py\n", "ml/.gitignore": "*.log\n"})
    code = {"a.py": "", "a.ckpt": "", "b/c.ckpt": "", "local.py": "", "private.py": "", "x.log": "", "a.swp": ""}
    write(top / "ml/pipeline", {**code, "b/local.py": ""})
    rules = code_rules(Project(top / "ml"))
    assert sent(rules, top / "ml/pipeline") == ["a.py", "b/local.py"]
    assert decided(rules, top / "ml/pipeline", "b/c.ckpt") == ("*.ckpt", "../.gitignore", 1)
    assert decided(rules, top / "ml/pipeline", "private.py") == ("private.py", "../.git/info/exclude", 1)
    assert decided(rules, top / "ml/pipeline", "a.swp") == ("*.swp", str(git_home / "my ignores"), 1)


def test_variables_of_another_repository_do_not_count(
    tmp_path: Path, git_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a hook: Git sets them for whatever it starts."""
    for name in ("repo", "other"):
        git(tmp_path, "init", "-q", name)
    git(tmp_path / "repo", "config", "core.excludesFile", str(tmp_path / "right"))
    git(tmp_path / "other", "config", "core.excludesFile", str(tmp_path / "wrong"))
    write(tmp_path, {"right": "right.py\n", "wrong": "wrong.py\n", "other/.gitignore": "wrong.py\n"})
    write(tmp_path / "repo/pipeline", {"right.py": "", "wrong.py": ""})
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other/.git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.excludesFile")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", str(tmp_path / "wrong"))
    assert sent(code_rules(Project(tmp_path / "repo")), tmp_path / "repo/pipeline") == ["wrong.py"]


@pytest.mark.parametrize("place", [".gitignore", ".git/info/exclude"])
def test_a_repository_that_ignores_the_whole_project_does_not_count(tmp_path: Path, git_home: Path, place: str) -> None:
    """As that of people who keep the settings in their home folder under Git."""
    git(tmp_path, "init", "-q", "repo")
    write(tmp_path / "repo", {place: "*\n", "work/ml/pipeline/a.py": "", "work/ml/.gitignore": "*.log\n"})
    pipeline = tmp_path / "repo/work/ml/pipeline"
    write(pipeline, {"a.log": ""})
    assert sent(code_rules(Project(pipeline.parent)), pipeline) == ["a.py"]


def test_a_submodule_is_a_repository_of_its_own(tmp_path: Path, git_home: Path) -> None:
    for name in ("repo", "library"):
        git(tmp_path, "init", "-q", name)
    write(tmp_path / "library", {"lib.py": "", "local.py": "", ".gitignore": "*.so\n"})
    git(tmp_path / "library", "add", "lib.py", ".gitignore")
    git(tmp_path / "library", "commit", "-q", "-m", "first")
    add = ("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(tmp_path / "library"))
    git(tmp_path / "repo", *add, "pipeline/vendor")
    folder = Path(git(tmp_path / "repo/pipeline/vendor", "rev-parse", "--absolute-git-dir"))
    write(folder, {"info/exclude": "local.py\n"})
    write(tmp_path / "repo/pipeline", {"vendor/local.py": "", "vendor/x.so": "", "local.py": ""})
    found = sent(code_rules(Project(tmp_path / "repo")), tmp_path / "repo/pipeline")
    assert found == ["local.py", "vendor/.gitignore", "vendor/lib.py"]


def test_the_files_decide_in_their_order(tmp_path: Path, git_home: Path) -> None:
    write(tmp_path, {".amlctlignore": "!a.log\n*.tmp\n", ".gitignore": "*.log\n!b.tmp\n"})
    write(tmp_path / "pipeline", {".gitignore": "*.log\n", ".amlignore": "!b.log\n*.md\n", "sub/.amlignore": "*.csv\n"})
    write(tmp_path / "pipeline", dict.fromkeys(("a.log", "b.log", "c.log", "a.tmp", "b.tmp", "a.md", "sub/a.csv"), ""))
    found = [name for name in sent(code_rules(Project(tmp_path)), tmp_path / "pipeline") if "ignore" not in name]
    assert found == ["a.log", "b.log"]


def test_an_exclude_file_of_the_user_that_cannot_be_read_counts_as_empty(tmp_path: Path, git_home: Path) -> None:
    write(git_home, {".gitconfig": f"[core]\n\texcludesFile = {tmp_path}\n"})
    write(tmp_path / "pipeline", {"a.py": ""})
    assert sent(code_rules(Project(tmp_path)), tmp_path / "pipeline") == ["a.py"]


def test_an_ignore_file_that_is_a_pipe_is_not_waited_for(tmp_path: Path, git_home: Path) -> None:
    write(tmp_path / "pipeline", {"a.py": ""})
    os.mkfifo(tmp_path / ".gitignore")
    assert sent(code_rules(Project(tmp_path)), tmp_path / "pipeline") == ["a.py"]


def test_a_project_reached_by_a_link_has_the_rules_of_its_repository(tmp_path: Path, git_home: Path) -> None:
    git(tmp_path, "init", "-q", "repo")
    write(tmp_path / "repo", {".gitignore": "*.log\n", "ml/pipeline/a.log": "", "ml/pipeline/a.py": ""})
    (tmp_path / "link").symlink_to("repo/ml")
    assert sent(code_rules(Project(tmp_path / "link")), tmp_path / "link/pipeline") == ["a.py"]


def test_code_of_a_job_file_follows_the_same_rules(tmp_path: Path, git_home: Path) -> None:
    git(tmp_path, "init", "-q", "repo")
    root = tmp_path / "repo/ml"
    write(tmp_path / "repo", {".gitignore": "*.log\n"})
    code = {
        "a.py": "",
        "a.log": "",
        ".env": "",
        "data_blobs/x": "",
        "outputs/y": "",
        ".amlctl/z": "",
        "sub/outputs/k": "",
    }
    write(root, code)
    assert sent(job_code_rules(Project(root), root), root) == ["a.py", "sub/outputs/k"]
    write(tmp_path / "elsewhere", {"b.py": "", "id_rsa": "", "outputs/x": "", ".amlctlignore": "!id_rsa\n"})
    found = sent(job_code_rules(Project(root), tmp_path / "elsewhere"), tmp_path / "elsewhere")
    assert found == [".amlctlignore", "b.py", "id_rsa"]
