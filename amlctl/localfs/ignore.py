"""Ignore files with Git's rules (gitignore(5)), at every level.

The last matching line of the deepest ignore file decides. A folder that is ignored is never entered, so
nothing inside it can be taken back. Files of several names are layers: each follows Git's rules, and a layer
is asked only where the ones before it say nothing; the first name of `file_names` is asked first. Unlike Git's,
matching never folds case, so that a dataset is the same on every file system, and an ignore file may be a symlink.

Of a dataset `.amlctlignore` counts, from `data_blobs/` downwards, and the settings, whose patterns count as if they
stood there. For code see `code_rules`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import xxhash

from amlctl.errors import RightsError
from amlctl.localfs.disk_errors import UnfitFile
from amlctl.localfs.project import Project
from amlctl.localfs.regular_file import open_regular
from amlctl.localfs.wildmatch import any_of, byte_text, name_regex, path_regex

SETTINGS_SOURCE = ".amlctl.toml [sync] ignore"

_UTF8_MARK = b"\xef\xbb\xbf"
_IS_PLAIN = re.compile(r"[^*?\[\\]+")
_IS_SUFFIX = re.compile(r"\*[^*?\[\\]+")


@dataclass(frozen=True)
class Rule:
    """One line of an ignore file. `source` is the file relative to the root, `line` counts from 1.

    For patterns of the settings `source` is SETTINGS_SOURCE and `line` the place in the list; a rule of amlctl's own
    has the line 0. `regex` is for byte text: the bare name (`is_for_names`), or the path from the root.
    """

    pattern: str
    source: str
    line: int
    is_negated: bool
    is_folder_only: bool
    is_for_names: bool
    body: str = field(repr=False)
    regex: re.Pattern[str] = field(repr=False, compare=False)

    @property
    def where(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


class RuleChain:
    """The rules of a folder and of those above it, in layers, strongest first; shared by all folders that add none."""

    def __init__(self, layers: Iterable[Sequence[Rule]]) -> None:
        self.layers = tuple(tuple(layer) for layer in layers)
        self.rules = rules = tuple(rule for layer in self.layers for rule in layer)
        # What most names fail at once: three screens for names, one for paths.
        bodies = [rule.body for rule in rules if rule.is_for_names]
        self.plain_names = frozenset(body for body in bodies if _IS_PLAIN.fullmatch(body))
        self.suffixes = tuple(body[1:] for body in bodies if _IS_SUFFIX.fullmatch(body))
        others = [body for body in bodies if not _IS_PLAIN.fullmatch(body) and not _IS_SUFFIX.fullmatch(body)]
        self.other_names = any_of(name_regex(body) for body in others)
        self.paths = any_of(rule.regex.pattern for rule in rules if not rule.is_for_names)


class FolderRules:
    """The rules that hold in one folder. Thread-safe."""

    def __init__(self, chain: RuleChain, folder: str) -> None:
        self._chain = chain
        self._prefix = byte_text(f"{folder}/") if folder else ""
        self.is_empty = not chain.rules

    def are_those_of(self, other: FolderRules) -> bool:
        """Whether no ignore file stands between the two folders, of which one is below the other."""
        return self._chain is other._chain

    def screen(self) -> Optional[tuple[frozenset[str], tuple[str, ...]]]:
        """Whole names and endings: a file without any of them is kept. None where a name alone does not tell."""
        rules = [rule for rule in self._chain.rules if not rule.is_folder_only]
        whole = frozenset(rule.body for rule in rules if _IS_PLAIN.fullmatch(rule.body))
        endings = tuple(rule.body[1:] for rule in rules if _IS_SUFFIX.fullmatch(rule.body))
        is_known_by_name = all(rule.is_for_names and rule.body.isascii() for rule in rules)
        return (
            (whole, endings) if is_known_by_name and len(whole) + len(endings) >= len({r.body for r in rules}) else None
        )

    def match(self, name: str, is_dir: bool) -> Optional[Rule]:
        """The rule by which `name` is ignored; None where it is kept."""
        chain = self._chain
        text = byte_text(name)
        if (
            text not in chain.plain_names
            and not text.endswith(chain.suffixes)
            and (chain.other_names is None or chain.other_names.fullmatch(text) is None)
            and (chain.paths is None or chain.paths.fullmatch(self._prefix + text) is None)
        ):
            return None
        is_ignored, rule = self.decide(name, is_dir)
        return rule if is_ignored else None

    def decide(self, name: str, is_dir: bool) -> tuple[bool, Optional[Rule]]:
        """Whether `name` is ignored, and the rule that decided: also the negated one that keeps it."""
        rule = self._first_match(self._chain.rules, name, is_dir)
        return rule is not None and not rule.is_negated, rule

    def _first_match(self, rules: Sequence[Rule], name: str, is_dir: bool) -> Optional[Rule]:
        text = byte_text(name)
        path = self._prefix + text
        for rule in rules:
            if rule.is_folder_only and not is_dir:
                continue
            if rule.regex.fullmatch(text if rule.is_for_names else path) is not None:
                return rule
        return None


class IgnoreRules:
    """The ignore rules below one root, read folder by folder while the caller walks down from `top`.

    `digest` changes with the ignore files above `top`, which the walk does not see.
    """

    def __init__(
        self,
        root: Path,
        file_names: Sequence[str],
        extra: Sequence[str] = (),
        *,
        top: Optional[Path] = None,
        also: Optional[Mapping[str, Sequence[Rule]]] = None,
    ) -> None:
        """`top` is `root` or a folder below it. `extra` are patterns of the settings: weakest of all, relative to
        `root`. `also` are rules, strongest first, that are weaker than those of the files of that name."""
        self.file_names = tuple(file_names)
        self.left_out: dict[str, Rule] = {}
        """Paths below the walk's top that only amlctl itself keeps at home, as far as a walk has met them."""
        self._root = root
        weakest = [
            rule for number, line in enumerate(extra, 1) for rule in parse_line(line, SETTINGS_SOURCE, number, "")
        ]
        self._first_chain = RuleChain([*((also or {}).get(name, ()) for name in self.file_names), weakest[::-1]])
        self._chains: dict[str, RuleChain] = {}
        parts = (top or root).relative_to(root).parts
        self._top = "/".join(parts)
        state = xxhash.xxh3_128("\n".join(extra).encode("utf-8", "surrogateescape"))
        for depth in range(len(parts)):
            folder = "/".join(parts[:depth])
            self._chain_of(folder, [name for name in file_names if (root / folder / name).exists()])
            for rule in self._chains[folder].rules:
                state.update(f"\0{rule.source}:{rule.line}:{rule.pattern}".encode("utf-8", "surrogateescape"))
        self.digest = state.digest()

    def enter(self, folder: str, names: Collection[str]) -> FolderRules:
        """The rules of `folder` (relative to the top, "" for the top itself), its parents' included.

        `names` are the names in that folder; only those of `file_names` matter. Parents are entered before.
        Raises RightsError for an ignore file that cannot be read.
        """
        path = self._from_root(folder)
        return FolderRules(self._chain_of(path, names), path)

    def _from_root(self, folder: str) -> str:
        return f"{self._top}/{folder}".strip("/") if self._top else folder

    def _chain_of(self, folder: str, names: Collection[str]) -> RuleChain:
        above = folder.rpartition("/")[0]
        chain = self._chains.get(above, self._first_chain) if folder else self._first_chain
        own = [self._own_rules(folder, name, name in names) for name in self.file_names]
        if any(own):
            chain = RuleChain([*([*mine, *above] for mine, above in zip(own, chain.layers)), chain.layers[-1]])
        self._chains[folder] = chain
        return chain

    def _own_rules(self, folder: str, name: str, is_there: bool) -> Sequence[Rule]:
        """Those of the ignore file of that name, the last line first."""
        source = f"{folder}/{name}" if folder else name
        return read_rules(self._root / source, self._shown(source), folder) if is_there else ()

    def _shown(self, source: str) -> str:
        return source


def decide_path(rules: IgnoreRules, root: Path, path: Path) -> tuple[bool, Optional[Rule], Path]:
    """Walk down from `root`: the first ignored folder decides for all that is in it. Also the path that was decided."""
    parts = path.relative_to(root).parts
    folder = root
    decided: Optional[Rule] = None
    for depth, part in enumerate(parts):
        names = [name for name in rules.file_names if (folder / name).exists()]
        here = rules.enter("/".join(parts[:depth]), names)
        is_dir = depth < len(parts) - 1 or (folder / part).is_dir()
        is_ignored, decided = here.decide(part, is_dir)
        folder = folder / part
        if is_ignored:
            return True, decided, folder
    return False, decided, folder


def read_rules(path: Path, source: str, folder: str) -> list[Rule]:
    """The rules of one ignore file, the last line first; none where it is missing, or not a file.

    `folder` is the one that its patterns are relative to, from the root. Raises RightsError.
    """
    try:
        with open_regular(path) as file:
            content = file.read()
    except (FileNotFoundError, NotADirectoryError, UnfitFile):
        return []
    except OSError as error:
        raise RightsError(
            f"cannot read the ignore file {path}: {error.strerror}", hint=f"chmod u+r {shlex.quote(str(path))}"
        ) from error
    content = content[len(_UTF8_MARK) :] if content.startswith(_UTF8_MARK) else content
    lines = [line[:-1] if line.endswith(b"\r") else line for line in content.split(b"\n")]
    rules = [
        rule
        for number, line in enumerate(lines, 1)
        for rule in parse_line(line.decode("utf-8", "surrogateescape"), source, number, folder)
    ]
    return rules[::-1]


def parse_line(line: str, source: str, number: int, folder: str) -> Iterator[Rule]:
    """The rule that a line holds, if any. The order of the steps is that of `dir.c`, parse_path_pattern."""
    text = line.partition("\0")[0]
    if text.startswith("#"):
        return
    pattern = _without_trailing_spaces(text)
    body = byte_text(pattern)
    is_negated = body.startswith("!")
    body = body[is_negated:]
    is_folder_only = body.endswith("/")
    body = body[:-1] if is_folder_only else body
    if not body:
        return
    is_for_names = "/" not in body
    below = re.escape(byte_text(f"{folder}/")) if folder else ""
    expression = name_regex(body) if is_for_names else below + path_regex(body)
    regex = re.compile(expression, re.DOTALL)
    yield Rule(pattern, source, number, is_negated, is_folder_only, is_for_names, body, regex)


def _without_trailing_spaces(text: str) -> str:
    """Git's rule: spaces at the end do not count, unless a backslash stands before the first of them."""
    end = len(text)
    at = 0
    trailing: Optional[int] = None
    while at < end:
        if text[at] == " ":
            trailing = at if trailing is None else trailing
        else:
            trailing = None
            if text[at] == "\\":
                at += 1
                if at == end:
                    return text
        at += 1
    return text if trailing is None else text[:trailing]


DATASET_IGNORE_FILES = (".amlctlignore",)
"""Data is usually git-ignored, so .gitignore does not count."""


def dataset_rules(project: Project, dataset: str, ignore: Sequence[str]) -> IgnoreRules:
    """`dataset` may be empty: the rules of `data_blobs/` itself."""
    top = project.dataset_path(dataset) if dataset else project.data_blobs_dir
    return IgnoreRules(project.dataset_base(dataset), DATASET_IGNORE_FILES, ignore, top=top)


def ignore_files_above(project: Project, datasets: Iterable[str]) -> dict[str, str]:
    """The text of each ignore file above the datasets, by its path below `data_blobs/`: a node does not have them.

    Bytes that are not UTF-8 are surrogate escapes. Raises OSError.
    """
    found: dict[str, str] = {}
    for dataset in datasets:
        folder = project.dataset_path(dataset)
        while folder != project.data_blobs_dir:
            folder = folder.parent
            for path in (folder / name for name in DATASET_IGNORE_FILES):
                if path.is_file():
                    text = path.read_bytes().decode("utf-8", "surrogateescape")
                    found[path.relative_to(project.data_blobs_dir).as_posix()] = text
    return found
