"""Ignore files with Git's rules (gitignore(5)), at every level.

The last matching line of the deepest ignore file decides. A folder that is ignored is never entered, so
nothing inside it can be taken back. Where one folder has several ignore files, the first name of
`file_names` has the last word. Unlike Git's, matching never folds case, so that a dataset is the same on
every file system, and an ignore file may be a symlink.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import xxhash

from amlctl.errors import RightsError
from amlctl.localfs.disk_errors import disk_error
from amlctl.localfs.wildmatch import any_of, byte_text, name_regex, path_regex

SETTINGS_SOURCE = ".amlctl.toml [sync] ignore"

_UTF8_MARK = b"\xef\xbb\xbf"
_IS_PLAIN = re.compile(r"[^*?\[\\]+")
_IS_SUFFIX = re.compile(r"\*[^*?\[\\]+")


@dataclass(frozen=True)
class Rule:
    """One line of an ignore file. `source` is the file relative to the root, `line` counts from 1.

    For patterns of the settings `source` is SETTINGS_SOURCE and `line` the place in the list. `regex` is for
    byte text: the bare name (`is_for_names`), or the path from the root.
    """

    pattern: str
    source: str
    line: int
    is_negated: bool
    is_folder_only: bool
    is_for_names: bool
    body: str = field(repr=False)
    regex: re.Pattern[str] = field(repr=False, compare=False)


class _RuleChain:
    """The rules of a folder and of those above it, strongest first; shared by all folders that add none."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        # What most names fail at once: three screens for names, one for paths.
        bodies = [rule.body for rule in rules if rule.is_for_names]
        self.plain_names = frozenset(body for body in bodies if _IS_PLAIN.fullmatch(body))
        self.suffixes = tuple(body[1:] for body in bodies if _IS_SUFFIX.fullmatch(body))
        others = [body for body in bodies if not _IS_PLAIN.fullmatch(body) and not _IS_SUFFIX.fullmatch(body)]
        self.other_names = any_of(name_regex(body) for body in others)
        self.paths = any_of(rule.regex.pattern for rule in rules if not rule.is_for_names)


class FolderRules:
    """The rules that hold in one folder. Thread-safe."""

    def __init__(self, chain: _RuleChain, folder: str) -> None:
        self._chain = chain
        self._prefix = byte_text(f"{folder}/") if folder else ""
        self.is_empty = not chain.rules

    def are_those_of(self, other: FolderRules) -> bool:
        """Whether no ignore file stands between the two folders, of which one is below the other."""
        return self._chain is other._chain

    def screen(self) -> Optional[tuple[frozenset[str], tuple[str, ...]]]:
        """Whole names and endings: a file with none of them is kept. None where a name alone does not tell."""
        rules = [rule for rule in self._chain.rules if not rule.is_folder_only]
        whole = frozenset(rule.body for rule in rules if _IS_PLAIN.fullmatch(rule.body))
        endings = tuple(rule.body[1:] for rule in rules if _IS_SUFFIX.fullmatch(rule.body))
        is_told_by_name = all(rule.is_for_names and rule.body.isascii() for rule in rules)
        return (
            (whole, endings) if is_told_by_name and len(whole) + len(endings) >= len({r.body for r in rules}) else None
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
        text = byte_text(name)
        path = self._prefix + text
        for rule in self._chain.rules:
            if rule.is_folder_only and not is_dir:
                continue
            if rule.regex.fullmatch(text if rule.is_for_names else path) is not None:
                return not rule.is_negated, rule
        return False, None


class IgnoreRules:
    """The ignore rules below one root, read folder by folder while the caller walks down."""

    def __init__(self, root: Path, file_names: Sequence[str], extra: Sequence[str] = ()) -> None:
        """`extra` are patterns of the settings: weakest of all, relative to `root`."""
        self.file_names = tuple(file_names)
        self._root = root
        rules = [
            rule for number, line in enumerate(extra, 1) for rule in _parse_line(line, SETTINGS_SOURCE, number, "")
        ]
        self._settings_chain = _RuleChain(rules[::-1])
        self._chains: dict[str, _RuleChain] = {}

    def enter(self, folder: str, names: Collection[str]) -> FolderRules:
        """The rules of `folder` (relative to the root, "" for the root itself), its parents' included.

        `names` are the names in that folder; only those of `file_names` matter. Parents are entered before.
        Raises RightsError for an ignore file that cannot be read.
        """
        above = folder.rpartition("/")[0]
        chain = self._chains.get(above, self._settings_chain) if folder else self._settings_chain
        own = [rule for name in self.file_names if name in names for rule in self._read(folder, name)]
        if own:
            chain = _RuleChain([*own, *chain.rules])
        self._chains[folder] = chain
        return FolderRules(chain, folder)

    def _read(self, folder: str, name: str) -> list[Rule]:
        """The rules of one ignore file, the last line first."""
        source = f"{folder}/{name}" if folder else name
        try:
            content = (self._root / source).read_bytes()
        except (FileNotFoundError, IsADirectoryError):
            return []
        except OSError as error:
            what = f"cannot read the ignore file {self._root / source}"
            found = disk_error(error, what, rights_hint=f"chmod u+r {source}")
            raise found or RightsError(f"{what}: {error.strerror}", hint=f"check {source}") from error
        content = content[len(_UTF8_MARK) :] if content.startswith(_UTF8_MARK) else content
        lines = [line[:-1] if line.endswith(b"\r") else line for line in content.split(b"\n")]
        rules = [
            rule
            for number, line in enumerate(lines, 1)
            for rule in _parse_line(line.decode("utf-8", "surrogateescape"), source, number, folder)
        ]
        return rules[::-1]


class RulesBelow(IgnoreRules):
    """Rules for a walk that starts at `top`, at or below `root`, and knows only paths relative to `top`.

    `digest` changes with the ignore files above `top`, which the walk does not see.
    """

    def __init__(self, root: Path, file_names: Sequence[str], top: Path, extra: Sequence[str] = ()) -> None:
        super().__init__(root, file_names, extra)
        parts = top.relative_to(root).parts
        self._top = "/".join(parts)
        state = xxhash.xxh3_128("\n".join(extra).encode("utf-8", "surrogateescape"))
        for depth in range(len(parts)):
            folder = "/".join(parts[:depth])
            super().enter(folder, [name for name in file_names if (root / folder / name).exists()])
            for rule in self._chains[folder].rules:
                state.update(f"\0{rule.source}:{rule.line}:{rule.pattern}".encode("utf-8", "surrogateescape"))
        self.digest = state.digest()

    def enter(self, folder: str, names: Collection[str]) -> FolderRules:
        return super().enter(f"{self._top}/{folder}".strip("/"), names)


def _parse_line(line: str, source: str, number: int, folder: str) -> Iterator[Rule]:
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
