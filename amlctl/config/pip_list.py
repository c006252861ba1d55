"""The `pip:` list of an environment file, read like a requirements file of pip.

An entry is one or more lines of such a file. Files that it names (`-r`, `-c`) are replaced by their lines, so that
their content counts; packages on this machine are identified by their content. What is not supported is refused with
its file and line. Rules:
https://pip.pypa.io/en/stable/reference/requirements-file-format/ (read 2026-11).
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from amlctl.config.text_file import read_text
from amlctl.errors import NotFound, RightsError, SettingsError

_COMMENT = re.compile(r"(^|\s+)#.*$")
_PINNED = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:==\d+(?:\.\d+)*)?")
"""Most lines: a name, or a name and a version; certainly valid."""
_ARCHIVES = (".whl", ".tar.gz", ".tgz", ".zip", ".tar.bz2", ".tar.xz", ".tar")
_FLAGS = ("--no-index", "--prefer-binary", "--pre", "--require-hashes")
_WITH_VALUE = {
    **dict.fromkeys(("-i", "--index-url", "--pypi-url"), "--index-url"),
    **dict.fromkeys(("-f", "--find-links"), "--find-links"),
    **dict.fromkeys(("-r", "--requirement", "--requirements"), "--requirement"),
    **dict.fromkeys(("-c", "--constraint", "--constraints"), "--constraint"),
    **dict.fromkeys(("-e", "--editable"), "--editable"),
    **{name: name for name in ("--extra-index-url", "--no-binary", "--only-binary", "--trusted-host", "--use-feature")},
}
_OF_REQUIREMENT = ("--hash", "--config-settings", "--config-setting", "--global-option")
_MAX_DEPTH = 20
"""Requirement files that name one another; deeper is a circle."""
_LOCAL_HINT = "build a wheel (pip wheel --no-deps DIR) and list that file, or move the package below pipeline/"


class _ListFile(NamedTuple):
    """What a line stands in: files that it names are relative to `folder`, None where it may name none."""

    folder: Path | None
    is_constraint: bool = False
    depth: int = 0


class PipList:
    """`lines` and `constraints` for pip, with absolute paths; `local` has the sha256 of each path in them, and `places`
    the `file:line` of each line. `has_files`: another file was read, or is required to install this.

    `folder` is that of the environment file. Without one, only local files may be named that were `identified` when the
    list was recorded (path and sha256).
    """

    def __init__(self, folder: Path | None, identified: Mapping[str, str] | None = None) -> None:
        self.lines: list[str] = []
        self.constraints: list[str] = []
        self.local: dict[str, str] = {}
        self.places: dict[str, str] = {}
        self.has_files = False
        self._root = folder
        self._identified = identified or {}

    def add(self, entry: str, place: str) -> None:
        """One entry of the list; `place` is its `file:line`. Raises SettingsError."""
        for _, line in _logical_lines(entry):
            self._line(line, place, _ListFile(self._root))

    def _file(self, path: str, place: str, within: _ListFile) -> None:
        if "://" in path:
            raise SettingsError(
                f"{place}: {path} is not a file: its content may change",
                hint="download it and use the file",
            )
        if within.depth >= _MAX_DEPTH:
            raise SettingsError(f"{place}: the requirement files name each other in a circle")
        full = self._path(path, place, within.folder)
        shown = os.path.relpath(full, self._root) if self._root is not None else str(full)
        try:
            text = read_text(full, shown)
        except (NotFound, RightsError, SettingsError) as error:
            raise SettingsError(f"{place}: {error.message}", hint=f"paths are relative to {full.parent}") from error
        self.has_files = True
        for number, line in _logical_lines(text):
            self._line(line, f"{shown}:{number}", within._replace(folder=full.parent, depth=within.depth + 1))

    def _line(self, line: str, place: str, within: _ListFile) -> None:
        if line.startswith("-"):
            for option, value in _options(line, place):
                self._option(option, value, place, within)
            return
        requirement, options = _split_options(line, place)
        if not within.is_constraint and _is_local(requirement):
            requirement = self._local_requirement(requirement, place, within.folder)
        elif "://" not in requirement:
            _check_requirement(requirement, place)
        elif re.match(r"(?:.* @ )?git\+file:", requirement):
            raise SettingsError(f"{place}: {requirement!r} is a repository on this machine", hint=_LOCAL_HINT)
        self._take(f"{requirement} {options}".strip(), place, is_constraint=within.is_constraint)

    def _take(self, text: str, place: str, *, is_constraint: bool) -> None:
        target = self.constraints if is_constraint else self.lines
        if text not in target:
            target.append(text)
        self.places.setdefault(text, place)

    def _option(self, option: str, value: str, place: str, within: _ListFile) -> None:
        if option == "--requirement":
            self._file(value, place, within)
        elif option == "--constraint":
            self._file(value, place, within._replace(is_constraint=True))
        elif option == "--editable":
            raise SettingsError(f"{place}: -e {value} installs from a folder that can change later", hint=_LOCAL_HINT)
        elif option == "--find-links" and ("://" not in value or value.startswith("file:")):
            full = self._path(value, place, within.folder)
            self._identify(full, place)
            self._take(f"--find-links {full.as_uri()}", place, is_constraint=False)
        else:
            self._take(f"{option} {value}".strip(), place, is_constraint=False)

    def _local_requirement(self, requirement: str, place: str, folder: Path | None) -> str:
        """`[name[extras] @ ]file:///absolute/path[; marker]`."""
        name, at, where = requirement.rpartition(" @ ")
        path, marker = _without_marker(where)
        extras = ""
        if not at and (match := re.fullmatch(r"(.*)(\[[^\]]*\])", path)):
            path, extras = match[1], match[2]
        path = path.partition("#")[0] if path.startswith("file:") else path
        full = self._path(path, place, folder)
        if full.is_dir():
            raise SettingsError(f"{place}: {where} is a folder, which can change later", hint=_LOCAL_HINT)
        if not full.name.lower().endswith(_ARCHIVES):
            raise SettingsError(f"{place}: {where} is neither a wheel nor a source archive")
        self._identify(full, place)
        if extras:
            name, at = re.split(r"-\d", full.name)[0].replace("_", "-") + extras, " @ "
        return f"{name}{at}{full.as_uri()}" + (f" ; {marker}" if marker else "")

    def _path(self, path: str, place: str, folder: Path | None) -> Path:
        """Relative to the file that names it, else to the environment file. Raises SettingsError."""
        try:
            plain = unquote(urlsplit(path).path) if path.startswith("file:") else os.path.expanduser(path)
        except ValueError as error:
            raise SettingsError(f"{place}: {path!r} is not a valid URL", hint="use file:///FOLDER/FILE") from error
        if plain in self._identified:
            return Path(plain)
        if self._root is None or folder is None:
            raise SettingsError(
                f"{place}: {path!r} requires another file, which is not part of this environment",
                hint="write the packages into this list",
            )
        candidates = [Path(os.path.abspath(base / plain)) for base in (folder, self._root)]
        full = next((one for one in candidates if one.exists()), None)
        if full is None:
            raise SettingsError(f"{place}: {path} does not exist", hint=f"expected at {candidates[0]}")
        return full

    def _identify(self, path: Path, place: str) -> None:
        self.has_files = True
        try:
            self.local[str(path)] = self._identified.get(str(path)) or _digest(path)
        except OSError as error:
            raise SettingsError(f"{place}: cannot read {error.filename or path}: {error.strerror}") from error


def _is_local(requirement: str) -> bool:
    """Like pip: a path, or an archive."""
    where = requirement.partition(" @ ")[2] or requirement
    if where.startswith("file:"):
        return True
    if "://" in where or " @ " in requirement:
        return False
    path = _without_marker(where)[0]
    return path.startswith((".", "/", "~")) or "/" in path or path.lower().endswith(_ARCHIVES)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Number and text of each line: continued lines are joined, comments and blank lines removed."""
    joined, start = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        is_comment = raw.lstrip().startswith("#")
        if not joined:
            start = number
        if is_comment and joined:
            raw = ""  # a comment ends a continued line
        if raw.endswith("\\") and not is_comment:
            joined += raw[:-1] + (" " if raw[:-1].endswith((" ", "\t")) else "")
            continue
        line, joined = _COMMENT.sub("", joined + raw).strip(), ""
        if line:
            yield start, line
    if line := _COMMENT.sub("", joined).strip():
        yield start, line


def _options(line: str, place: str) -> Iterator[tuple[str, str]]:
    """Each option of the line with its value. Raises SettingsError for an unsupported one."""
    words = _words(line, place)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if not name.startswith("--") and len(name) > 2:  # -rfile
            name, equals, value = word[:2], "=", word[2:]
        if name in _FLAGS and not equals:
            yield name, ""
            continue
        option = _WITH_VALUE.get(name)
        if option is None:
            raise SettingsError(
                f"{place}: pip's option {name} is not supported in this list",
                hint="supported: -r, -c, -f, -i, --extra-index-url, --no-index, --no-binary, --only-binary, "
                "--prefer-binary, --pre, --trusted-host, --require-hashes",
            )
        if not equals:
            if not words:
                raise SettingsError(f"{place}: {name} requires a value")
            value = words.pop(0)
        if not value:
            raise SettingsError(f"{place}: {name} requires a value")
        yield option, value


def _words(line: str, place: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise SettingsError(f"{place}: {line!r} cannot be read: {error}") from error


def _split_options(line: str, place: str) -> tuple[str, str]:
    """A requirement, and its options."""
    match = re.search(r"\s--?[a-z]", line)
    if match is None:
        return line, ""
    requirement, options = line[: match.start()].strip(), line[match.start() :].strip()
    for word in _words(options, place):
        if word.startswith("-") and word.partition("=")[0] not in _OF_REQUIREMENT:
            raise SettingsError(
                f"{place}: {word.partition('=')[0]} is not supported after a requirement", hint="put it on its own line"
            )
    return requirement, options


def _without_marker(text: str) -> tuple[str, str]:
    """A path or URL, and the environment marker after `;`."""
    before, found, after = text.partition(";")
    return (before.strip(), after.strip()) if found else (text.strip(), "")


def _check_requirement(line: str, place: str) -> None:
    if _PINNED.fullmatch(line):
        return
    from packaging.requirements import InvalidRequirement, Requirement  # a tenth of a submit's imports

    try:
        Requirement(line)
    except InvalidRequirement as error:
        reason = str(error).partition("\n")[0]
        raise SettingsError(
            f"{place}: {line!r} is not a valid requirement: {reason}", hint="for example torch==2.13.0"
        ) from error


def _digest(path: Path) -> str:
    """sha256 of a file; for a folder, of its archives and pages with their names."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    whole = hashlib.sha256()
    for one in sorted(path.iterdir()):
        if one.name.lower().endswith((*_ARCHIVES, ".html", ".htm")) and one.is_file():
            whole.update(f"{_digest(one)} {one.name}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()
