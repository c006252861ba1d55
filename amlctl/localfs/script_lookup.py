"""Finds what people type for SCRIPT and `--config`.

Only files that are part of the code snapshot count as scripts: below `pipeline/` and not ignored. Ignored and
hidden folders are never entered.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Callable, Optional

from amlctl.core.message import Command, script_word, similar
from amlctl.errors import NotFound, SettingsError, UsageError
from amlctl.localfs.code_rules import CodeRules
from amlctl.localfs.disk_errors import disk_error, failing_disk
from amlctl.localfs.ignore import IgnoreRules
from amlctl.localfs.project import Project

CONFIG_SUFFIXES = (".json", ".yaml", ".yml")


def find_script(project: Project, text: str, *, cwd: Path, rules: CodeRules) -> Path:
    """The absolute path of the script that `text` means. `rules` are those of the project.

    A path is relative to `cwd`, to the project's root or to `pipeline/`; otherwise the end of a path that is
    unique below `pipeline/`, most often a bare name. Raises UsageError (ambiguous, outside `pipeline/`, a folder,
    no Python), NotFound with the nearest names.
    """
    if not text.strip():
        raise UsageError("No script given", hint=Command("submit", "SCRIPT"))
    pipeline = project.pipeline_dir
    is_bare = Path(text).name == text
    bases = [cwd, project.root] if is_bare else [cwd, project.root, pipeline]
    typed = [project.own_path(text, base) for base in bases]
    inside = [path for path in typed if _is_inside(path, pipeline)]
    for path in inside:
        if path.is_file():
            return _checked(project, path, rules)
    files = list(walk_files(pipeline, rules))
    if match := _only_match(project, files, text, "scripts", lambda shown: Command("submit", shown)):
        return _checked(project, match, rules)
    scripts = [path for path in files if path.suffix == ".py"]
    if any(path.is_dir() for path in inside):
        below = [path for path in scripts if any(_is_inside(path, folder) for folder in inside)]
        hint = Command("submit", _shown(project, below[0])) if below else "name a script in it"
        raise UsageError(f"{text!r} is a folder, not a script", hint=hint)
    if any(path.is_file() for path in typed):
        raise UsageError(
            f"{text!r} is not under pipeline/, so it would not be sent with the run", hint="move it to pipeline/"
        )
    raise _not_found(project, f"Script {text!r} not found under pipeline/", text, scripts)


def find_config(project: Project, text: str, *, cwd: Path, script: Path, rules: Callable[[], CodeRules]) -> Path:
    """The absolute path of the config that `text` means. `rules` reads those of the project, with git.

    Looked for as given (relative to `cwd`, to the root), beside the script, in `configs/` beside the script, then
    anywhere below `pipeline/`. Raises UsageError (ambiguous), NotFound with the nearest names.
    """
    if not text.strip():
        raise UsageError("No config given", hint="--config baseline.json")
    for base in (cwd, project.root, script.parent, script.parent / "configs", project.pipeline_dir):
        path = project.own_path(text, base)
        if path.is_file():
            return path
    files = list(walk_files(project.pipeline_dir, rules()))
    if match := _only_match(project, files, text, "configs", lambda shown: f"--config {shown}"):
        return match
    configs = [path for path in files if path.suffix.lower() in CONFIG_SUFFIXES]
    raise _not_found(project, f"Config {text!r} not found", text, configs)


def walk_files(pipeline: Path, ignore: IgnoreRules) -> Iterator[Path]:
    """Every file below `pipeline` that no rule ignores, in order of path; hidden and cache folders are left out."""
    pending = [""] if pipeline.is_dir() else []
    while pending:
        folder = pending.pop()
        entries = sorted(_entries(pipeline / folder), key=lambda entry: entry.name)
        rules = ignore.enter(folder, [entry.name for entry in entries])
        below = []
        for entry in entries:
            name, is_folder = entry.name, entry.is_dir(follow_symlinks=False)
            if rules.match(name, is_folder) is not None:
                continue
            if not is_folder and _is_file(entry):
                yield Path(entry.path)
            elif is_folder and not name.startswith(".") and name != "__pycache__":
                below.append(f"{folder}/{name}" if folder else name)
        pending.extend(reversed(below))


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Raises ServiceUnavailable where the disk fails: then it is not known."""
    try:
        return entry.is_file()
    except OSError as error:  # a loop of links is not a file
        if failure := failing_disk(error, entry.path):
            raise failure from error
        return False


def _checked(project: Project, path: Path, ignore: IgnoreRules) -> Path:
    if path.suffix != ".py":
        shown = _shown(project, path)
        convert = f"jupyter nbconvert --to script {shlex.quote(shown)} makes one"
        hint = convert if path.suffix == ".ipynb" else "its name has to end in .py"
        raise UsageError(f"{shown} is not a Python script", hint=hint)
    folder = ""
    parts = path.relative_to(project.pipeline_dir).parts
    for position, name in enumerate(parts):
        names = [entry.name for entry in _entries(project.pipeline_dir / folder)]
        rule = ignore.enter(folder, names).match(name, position < len(parts) - 1)
        if rule is not None:
            raise UsageError(
                f"{_shown(project, path)} is ignored, so it would not be sent with the run",
                hint=f"the rule is {rule.pattern!r} at {rule.where}",
            )
        folder = f"{folder}/{name}" if folder else name
    return path


def _entries(folder: Path) -> Sequence[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        found = disk_error(error, f"cannot read the folder {folder}")
        raise found or SettingsError(f"cannot read the folder {folder}: {error.strerror}") from error


def _is_inside(path: Path, folder: Path) -> bool:
    return folder in path.parents or path == folder


def _shown(project: Project, path: Path) -> str:
    return path.relative_to(project.root).as_posix()


def _only_match(
    project: Project, files: Sequence[Path], text: str, kind: str, hint: Callable[[str], str]
) -> Optional[Path]:
    """The one whose path ends with what was typed, if any. Raises UsageError for several."""
    wanted = f"/{os.path.normpath(text)}"
    start = len(project.pipeline_dir.as_posix())
    matches = [path for path in files if path.as_posix()[start:].endswith(wanted)]
    if len(matches) > 1:
        shown = [_shown(project, path) for path in matches]
        raise UsageError(f"{text!r} is the name of {len(matches)} {kind}", hint=hint(shown[0]), details=shown)
    return matches[0] if matches else None


def _not_found(project: Project, message: str, text: str, files: Sequence[Path]) -> NotFound:
    wanted = Path(text).stem
    by_stem: dict[str, list[str]] = {}  # the suffix, which all of them have, makes no name similar
    for path in files:
        by_stem.setdefault(path.stem, []).append(_shown(project, path))
    near = [stem for stem in by_stem if stem.lower() == wanted.lower()] or similar(wanted, by_stem)
    shown = [path for stem in near for path in by_stem[stem]][:5]
    if shown:
        name = Path(shown[0]).name if len(by_stem[near[0]]) == 1 else shown[0]
        return NotFound(message, hint=f"did you mean {script_word(name)}?", details=shown)
    some = sorted(path for paths in by_stem.values() for path in paths)[:5]
    return NotFound(message, hint=f"available: {', '.join(some)}" if some else "put it below pipeline/")
