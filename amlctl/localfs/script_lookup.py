"""Finds what people type for SCRIPT and `--config`.

Only files that are part of the code snapshot count as scripts: below `pipeline/` and not ignored. Ignored and
hidden folders are never entered. `ignore` takes paths relative to `pipeline`, as `ignore_rules.code_rules` gives them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from amlctl.core.message import Command, similar
from amlctl.errors import NotFound, SettingsError, UsageError
from amlctl.localfs.disk_errors import disk_error, failing_disk
from amlctl.localfs.ignore import IgnoreRules

CONFIG_SUFFIXES = (".json", ".yaml", ".yml")


def find_script(root: Path, pipeline: Path, text: str, *, cwd: Path, ignore: IgnoreRules) -> Path:
    """The absolute path of the script that `text` means.

    A path is relative to `cwd`, to the project's `root` or to `pipeline`; otherwise the end of a path that is
    unique below `pipeline`, most often a bare name. Raises UsageError (ambiguous, outside `pipeline`, a folder,
    no Python), NotFound with the nearest names.
    """
    if not text.strip():
        raise UsageError("No script given", hint=Command("submit", "SCRIPT"))
    is_bare = Path(text).name == text
    bases = [cwd, root] if is_bare else [cwd, root, pipeline]
    typed = [_absolute(base, text) for base in bases]
    inside = [path for path in typed if _is_inside(path, pipeline)]
    for path in inside:
        if path.is_file():
            return _checked(path, root, pipeline, ignore)
    files = list(walk_files(pipeline, ignore))
    matches = _ending_with(files, pipeline, text)
    if len(matches) == 1:
        return _checked(matches[0], root, pipeline, ignore)
    if matches:
        raise UsageError(
            f"{text!r} is the name of {len(matches)} scripts",
            hint=Command("submit", _shown(matches[0], root)),
            details=[_shown(path, root) for path in matches],
        )
    if any(path.is_dir() for path in inside):
        below = [path for path in files if path.suffix == ".py" and any(_is_inside(path, folder) for folder in inside)]
        hint = Command("submit", _shown(below[0], root)) if below else "name a script in it"
        raise UsageError(f"{text!r} is a folder, not a script", hint=hint)
    if any(path.is_file() for path in typed):
        raise UsageError(
            f"{text!r} is not under {_shown(pipeline, root)}/, so it would not be sent with the run",
            hint=f"move it to {_shown(pipeline, root)}/",
        )
    scripts = [path for path in files if path.suffix == ".py"]
    raise _not_found(f"Script {text!r} not found under {_shown(pipeline, root)}/", text, scripts, root, pipeline)


def find_config(root: Path, pipeline: Path, text: str, *, cwd: Path, script: Path, ignore: IgnoreRules) -> Path:
    """The absolute path of the config that `text` means.

    Looked for as given (relative to `cwd`, to `root`), beside the script, in `configs/` beside the script, then
    anywhere below `pipeline`. Raises UsageError (ambiguous), NotFound with the nearest names.
    """
    if not text.strip():
        raise UsageError("No config given", hint="--config baseline.json")
    for base in (cwd, root, script.parent, script.parent / "configs", pipeline):
        path = _absolute(base, text)
        if path.is_file():
            return path
    files = list(walk_files(pipeline, ignore))
    matches = _ending_with(files, pipeline, text)
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(
            f"{text!r} is the name of {len(matches)} configs",
            hint=f"--config {_shown(matches[0], root)}",
            details=[_shown(path, root) for path in matches],
        )
    configs = [path for path in files if path.suffix.lower() in CONFIG_SUFFIXES]
    raise _not_found(f"Config {text!r} not found", text, configs, root, pipeline)


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


def _checked(path: Path, root: Path, pipeline: Path, ignore: IgnoreRules) -> Path:
    if path.suffix != ".py":
        raise UsageError(f"{_shown(path, root)} is not a Python script", hint="its name has to end in .py")
    folder = ""
    parts = path.relative_to(pipeline).parts
    for position, name in enumerate(parts):
        names = [entry.name for entry in _entries(pipeline / folder)]
        rule = ignore.enter(folder, names).match(name, position < len(parts) - 1)
        if rule is not None:
            raise UsageError(
                f"{_shown(path, root)} is ignored, so it would not be sent with the run",
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


def _absolute(base: Path, text: str) -> Path:
    # Without resolving links: what people see as inside pipeline/ is inside.
    return Path(os.path.abspath(base / os.path.expanduser(text)))


def _is_inside(path: Path, folder: Path) -> bool:
    return folder in path.parents or path == folder


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _ending_with(files: Sequence[Path], pipeline: Path, text: str) -> list[Path]:
    wanted = os.path.normpath(text)
    start = len(f"{pipeline.as_posix()}/")
    relative = [(path, path.as_posix()[start:]) for path in files]
    return [path for path, name in relative if name == wanted or name.endswith("/" + wanted)]


def _not_found(message: str, text: str, files: Sequence[Path], root: Path, pipeline: Path) -> NotFound:
    wanted = Path(text).name
    by_name: dict[str, list[str]] = {}
    for path in files:
        by_name.setdefault(path.name, []).append(_shown(path, root))
    near = [name for name in by_name if wanted.lower() in (name.lower(), Path(name).stem.lower())]
    near = near or similar(wanted, by_name, cutoff=0.5)
    shown = [path for name in near for path in by_name[name]][:5]
    if shown:
        name = Path(shown[0]).name
        return NotFound(message, hint=f"did you mean {name if len(by_name[name]) == 1 else shown[0]}?", details=shown)
    some = sorted(path for paths in by_name.values() for path in paths)[:5]
    folder = f"put it below {_shown(pipeline, root)}/"
    return NotFound(message, hint=f"available: {', '.join(some)}" if some else folder)
