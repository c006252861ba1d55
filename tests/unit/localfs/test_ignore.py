"""Ignore rules, compared with the real `git check-ignore`."""

from __future__ import annotations

import contextlib
import os
import shutil
import string
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amlctl.errors import RightsError
from amlctl.localfs.ignore import SETTINGS_SOURCE, IgnoreRules, Rule
from tests.support.ordinary_user import open_folder, ordinary_user


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("git")
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    subprocess.run(["git", "-C", str(folder), "config", "core.ignorecase", "false"], check=True)
    subprocess.run(["git", "-C", str(folder), "config", "core.excludesFile", os.devnull], check=True)
    return folder


def check_same(repository: Path, files: dict[str, bytes], paths: Iterable[bytes]) -> None:
    """Ask Git and ourselves about every path (folders end with `/`), under these ignore files."""
    tree = repository / "tree"
    tree.mkdir()
    try:
        for name, content in files.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_bytes(content)
        wanted = {os.fsdecode(path).rstrip("/"): path.endswith(b"/") for path in paths}
        for name, is_folder in wanted.items():
            _make(tree / name, is_folder)
        names = [name for name in wanted if (tree / name).exists()]
        rules = IgnoreRules(tree, (".gitignore",))
        assert {name: _we_decide(rules, tree, name) for name in names} == _git_decides(tree, names)
    finally:
        shutil.rmtree(tree)


def _make(path: Path, is_folder: bool) -> None:
    """The path as a file or a folder; where another path already took its place, that one stays."""
    with contextlib.suppress(FileExistsError, NotADirectoryError):
        (path if is_folder else path.parent).mkdir(parents=True, exist_ok=True)
        if not path.is_dir():
            path.touch()


def _git_decides(tree: Path, names: Iterable[str]) -> dict[str, tuple[str, int, bool] | None]:
    """For each path the file, the line and whether it is ignored; None where no rule matches."""
    answer = subprocess.run(
        ["git", "check-ignore", "-z", "-v", "-n", "--no-index", "--stdin"],
        cwd=tree,
        input=b"".join(b"./%s\0" % os.fsencode(name) for name in names),
        stdout=subprocess.PIPE,
        check=False,
    ).stdout
    fields = [os.fsdecode(field) for field in answer.split(b"\0")[:-1]]
    decided = {
        path.removeprefix("./"): (source.removeprefix("tree/"), int(line), not pattern.startswith("!"))
        for source, line, pattern, path in zip(*[iter(fields)] * 4, strict=True)
        if source
    }
    return {name: decided.get(name) for name in names}


def _we_decide(rules: IgnoreRules, tree: Path, name: str) -> tuple[str, int, bool] | None:
    """As a walk does it: from the root down, and no further than the first ignored folder."""
    parts = name.split("/")
    for depth, part in enumerate(parts):
        folder = "/".join(parts[:depth])
        here = rules.enter(folder, os.listdir(tree / folder) if (tree / folder).is_dir() else [])
        is_dir = (tree / folder / part).is_dir()
        is_ignored, rule = here.decide(part, is_dir)
        assert (here.match(part, is_dir) is not None) == is_ignored
        if is_ignored or depth == len(parts) - 1:
            return None if rule is None else (rule.source, rule.line, is_ignored)
    raise AssertionError("a path has parts")


LINES = [
    *["foo", "/foo", "foo/", "/foo/", "foo//", "//foo", "a/b", "/a/b", "a/b/", "!foo", "!a/", "\\!a", "\\#a", "#a"],
    *["*", "/*", "*/", "**", "/**", "**/", "a/**", "a/**/", "**/a", "**/a/b", "a/**/b", "a/**/**/b", "a**/b"],
    *["a**b", "a/**b", "a/b**", "***", "a/***/b", "a/*", "a/*/b", "*/b", "*b", "?", "a/?", "a?b", "?/b", "a/**\\/b"],
    *["[ab]", "[!a]", "[^a]", "[]a]", "[!]]", "[a-c]", "[a-]", "[-a]", "[a", "a[", "[[:alpha:]]", "[![:digit:]]"],
    *["[[:nope:]]", "[[:alpha]", "[[:", "[\\]]", "[a\\-c]", "[c-a]", "a[/]b", "a/[!x]", "[a/]", "[\\", "a\\", "\\a"],
    *["a ", "a  ", "a\\ ", "a\\ \\ ", "a \\ ", "\\ ", " a", " ", "a\t", "\\\\", "foo\r", "\ta", "!", "/", "//", "!/"],
    *["é", "?é", "??", "[é]", "[À-ÿ]", "\\é", "a/é", ".gitignore", "a/.*", "a\\/b", "foo\\/", "[!a-z]b", "b[a-c-e]"],
]
PATHS = [
    *["foo/x", "a/", "a/b/c", "a/x/b", "a/x/y/b", "x/a", "x/a/b", "x/foo/", "b"],
    *["ab", "axb", "ax/b", "ax/y/b", "a/bx", "a/xb", "a ", "a  ", " a", " ", "c", "-", "]", "[", "!a", "#a", "!", "]a"],
    *["a\\", "\\", "a\t", "foo\r", "\ta", "é", "aé", "xé/", "a/é", "a/.b", ".b/", "1", "a/1", "B", "a\nb", "a\n", "bd"],
    *["a[", "[a", "a-c", "a/b/c/d/b", "aa/b", "be", "b-", "Zb", "*", "a*b", "?", "[:", ":", "p]", "l", "[]"],
]


@pytest.mark.parametrize("line", LINES)
def test_one_line_decides_as_git_does(repository: Path, line: str) -> None:
    check_same(repository, {".gitignore": line.encode() + b"\n"}, [path.encode() for path in PATHS])


@pytest.mark.parametrize("line", ["b", "/b", "c/b", "b/", "**/b", "!b", "b/**", "*"])
def test_a_nested_file_decides_as_git_does(repository: Path, line: str) -> None:
    files = {".gitignore": b"b\n/a/c\n", "a/.gitignore": line.encode() + b"\n", "a/c/.gitignore": b"!b\n"}
    check_same(repository, files, [b"b", b"a/b", b"a/b/", b"a/b/c", b"a/c/b", b"c/b", b"x/a/b", b"a/c", b"a/x/b"])


def test_every_byte_in_every_class_as_git_has_it(repository: Path) -> None:
    names = [
        "alnum",
        "alpha",
        "blank",
        "cntrl",
        "digit",
        "graph",
        "lower",
        "print",
        "punct",
        "space",
        "upper",
        "xdigit",
    ]
    paths = [bytes([byte]) + b"x" for byte in range(1, 256) if byte != ord("/")]
    for name in [*names, "xdigit"]:
        check_same(repository, {".gitignore": f"[[:{name}:]]x\n".encode()}, paths)


@pytest.mark.parametrize(
    "content",
    [
        *[b"a", b"a\nb", b"a\r\nb\r\n", b"a\r", b"\xef\xbb\xbfa\n", b"\n\n\na\n", b"a\0b\n", b"#a\n\n  \nb\n"],
        *[b"\xff\n", b"?x\n", b"[\xc0-\xff]\n", b"", b"!a\na\n", b"a\n!a\n", b"*\n!*/\n!*.b\n"],
    ],
)
def test_file_content_is_split_as_git_does(repository: Path, content: bytes) -> None:
    paths = [b"a", b"b", b"a\r", b"\xff", b"\xffx", b"\xe9", b"a/b", b"x.b", b"d/x.b", b"d/x.c", b"\xc3\xa9x"]
    check_same(repository, {".gitignore": content}, paths)


PATTERN = st.text(alphabet="ab/*?[]!^-\\ .#:", max_size=8)
NAME = st.text(alphabet="ab.*-]!\\ #", min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))
A_PATH = st.builds(
    lambda names, tail: "/".join(names) + tail,
    st.lists(NAME, min_size=1, max_size=4),
    st.sampled_from(["", "/"]),
)


@settings(max_examples=100)
@given(
    root=st.lists(PATTERN, max_size=4),
    nested=st.lists(PATTERN, max_size=3),
    paths=st.lists(A_PATH, min_size=1, max_size=30, unique=True),
)
def test_any_lines_decide_as_git_does(repository: Path, root: list[str], nested: list[str], paths: list[str]) -> None:
    files = {".gitignore": "\n".join(root).encode(), "a/.gitignore": "\n".join(nested).encode()}
    check_same(repository, files, [path.encode() for path in [*paths, *(f"a/{path}" for path in paths)]])


def test_a_rule_says_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".amlctlignore").write_text("# all\n\n*.tmp\n")
    (tmp_path / "sub" / ".amlctlignore").write_text("!keep.tmp\n")
    rules = IgnoreRules(tmp_path, (".amlctlignore",), extra=["*.bak", "cache/"])

    top = rules.enter("", [".amlctlignore", "sub"])
    below = rules.enter("sub", [".amlctlignore"])

    assert _place(top.match("a.tmp", False)) == ("*.tmp", ".amlctlignore", 3)
    assert top.match("keep.txt", False) is None
    assert _place(below.match("cache", True)) == ("cache/", SETTINGS_SOURCE, 2)
    assert below.match("cache", False) is None
    assert below.match("keep.tmp", False) is None
    is_ignored, rule = below.decide("keep.tmp", False)
    assert not is_ignored
    assert _place(rule) == ("!keep.tmp", "sub/.amlctlignore", 1)


def _place(rule: Rule | None) -> tuple[str, str, int]:
    assert rule is not None
    return rule.pattern, rule.source, rule.line


def test_the_first_file_name_has_the_last_word(tmp_path: Path) -> None:
    (tmp_path / ".amlctlignore").write_text("!model.bin\n")
    (tmp_path / ".gitignore").write_text("*.bin\n")
    here = IgnoreRules(tmp_path, (".amlctlignore", ".gitignore")).enter("", os.listdir(tmp_path))

    assert here.match("model.bin", False) is None
    assert here.match("other.bin", False) is not None


def test_settings_are_the_weakest_and_relative_to_the_root(tmp_path: Path) -> None:
    (tmp_path / ".amlctlignore").write_text("!a.log\n")
    rules = IgnoreRules(tmp_path, (".amlctlignore",), extra=["*.log", "/top", "x/y"])
    top = rules.enter("", [".amlctlignore"])
    below = rules.enter("x", [])

    assert top.match("a.log", False) is None
    assert top.match("b.log", False) is not None
    assert top.match("top", False) is not None
    assert below.match("top", False) is None
    assert below.match("y", False) is not None


def test_without_rules_folders_are_empty(tmp_path: Path) -> None:
    rules = IgnoreRules(tmp_path, (".amlctlignore",))
    assert rules.enter("", ["a", "b"]).is_empty
    assert rules.enter("a", []).is_empty
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / ".amlctlignore").write_text("# nothing but a comment\n")
    assert rules.enter("b", [".amlctlignore"]).is_empty


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / ".amlctlignore").write_bytes(b"\xff*\n")
    here = IgnoreRules(tmp_path, (".amlctlignore",)).enter("", [".amlctlignore"])
    assert here.match(os.fsdecode(b"\xffabc"), False) is not None
    assert here.match("ÿabc", False) is None


def test_an_ignore_file_that_is_a_link_or_a_folder(tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("a\n")
    (tmp_path / ".amlctlignore").symlink_to("rules")
    (tmp_path / ".gitignore").mkdir()
    here = IgnoreRules(tmp_path, (".amlctlignore", ".gitignore")).enter("", os.listdir(tmp_path))
    assert here.match("a", False) is not None


def test_an_unreadable_ignore_file_is_an_error_whose_hint_makes_it_readable() -> None:
    with open_folder() as folder, ordinary_user():
        inner = folder / "my data"
        inner.mkdir()
        ignore_file = inner / ".amlctlignore"
        ignore_file.write_text("secret\n")
        ignore_file.chmod(0)
        rules = IgnoreRules(folder, (".amlctlignore",))
        with pytest.raises(RightsError, match="amlctlignore") as caught:
            rules.enter("my data", [".amlctlignore"])
        subprocess.run(caught.value.hint, shell=True, check=True, cwd="/")
        assert rules.enter("my data", [".amlctlignore"]).match("secret", False) is not None


def test_many_rules_decide_like_each_alone(tmp_path: Path) -> None:
    patterns = [*string.ascii_lowercase, "*.py", "x?z", "dir/*.txt", "/only"]
    here = IgnoreRules(tmp_path, (), extra=patterns).enter("dir", [])
    assert [n for n in ("a", "q", "aa", "m.py", "xyz", "t.txt", "only", "z.tx") if here.match(n, False)] == [
        *("a", "q", "m.py", "xyz", "t.txt")
    ]
