"""What of the project a run does not get, and how it would: warnings before a run, hints after one that failed."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from amlctl.core.environment import CURRENT
from amlctl.core.log_text import Explained
from amlctl.core.message import Command, Message, below_data_blobs
from amlctl.core.package_names import package_of
from amlctl.core.run import RunRecord
from amlctl.errors import AmlctlError
from amlctl.localfs.code_rules import CodeRules, code_rules
from amlctl.localfs.ignore import decide_path
from amlctl.localfs.project import Project
from amlctl.operations.context import Context

_DEEPEST = 8
"""Levels of folders at which a dataset is looked for."""


def left_out(project: Project, rules: CodeRules, path: Path) -> str:
    """The rule that leaves a path below `pipeline/` out of the code, and how to send it all the same; else empty."""
    is_ignored, rule, decided = decide_path(rules, project.pipeline_dir, path)
    if not is_ignored or rule is None:
        return ""
    shown = decided.relative_to(project.root).as_posix() + ("/" if decided.is_dir() else "")
    taken_back = shlex.quote(f"!/{shown}")
    return f"{shown} is not sent ({rule.where}: {rule.pattern}); to send it: echo {taken_back} >> .amlctlignore"


def module_left_out(project: Project, rules: CodeRules, module: str, script: Path) -> str:
    """Why a run does not find a module that the project has, and how it would; else empty."""
    for root in (script.parent, project.pipeline_dir):
        if is_empty(folder := root / module.partition(".")[0]):
            shown = folder.relative_to(project.root).as_posix()
            return f"{shown} is empty; if it is a submodule: git submodule update --init"
        for file in module_files(root, module):
            if file.is_file() and (why := left_out(project, rules, file)):
                return why
    code, (top, _, below) = project.pipeline_dir, module.partition(".")
    if top == code.name:
        instead = f": import {below}" if any(file.is_file() for file in module_files(code, below)) else ""
        return f"modules of {top}/ are imported without its name{instead}"
    for path in (folder / name for folder in (project.root, project.root / "src") for name in (top, f"{top}.py")):
        if path.is_file() or any(path.glob("*.py")):  # a folder of that name may hold what the package writes
            shown = path.relative_to(project.root).as_posix()
            return f"{shown} is not sent with a run; to send it: ln -s ../{shown} {code.name}/{path.name}"
    return ""


def is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())


def module_files(root: Path, module: str) -> Iterator[Path]:
    """The files that an import runs, of which some may exist: `a/__init__.py`, `a.py`, `a/b/__init__.py`, `a/b.py`."""
    parts = [part for part in module.split(".") if part]
    for length in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:length])
        yield place / "__init__.py"
        yield place.with_suffix(".py")


def next_step(context: Context, record: RunRecord, lacks: Explained) -> str:
    """What to do about the module or file that a script did not find; empty where that is not known."""
    script = context.project.root / record.spec.script
    if lacks.file:
        return _send(context, record, lacks.file)
    with suppress(AmlctlError):
        if found := module_left_out(context.project, code_rules(context.project), lacks.module, script):
            return found
    # With `a.b` missing there is an `a`, so it is not about a package.
    return "" if "." in lacks.module else _add(record, package_of(lacks.module))


def _add(record: RunRecord, package: str) -> str:
    if record.spec.environment == CURRENT:
        return f"pip install {package}"
    return Message(f"add {package} to pptdaml.yaml, then ", Command("submit", record.spec.script.rpartition("/")[2]))


def _send(context: Context, record: RunRecord, file: str) -> str:
    """What to do about a file that the script did not find but this project, or its store, has; else empty."""
    project, parts = context.project, PurePosixPath(file).parts
    code, data, is_absolute = project.pipeline_dir.name, project.data_blobs_dir.name, parts[:1] == ("/",)
    for folder in (data, code) if is_absolute else ():  # as `file_paths.py` gives it
        if folder in parts:
            parts = parts[-1 - parts[::-1].index(folder) :]
            break
    if not parts or parts[0] == "/" or ".." in parts:
        return ""
    if is_absolute and Path(file).is_relative_to(project.root) and os.path.exists(file):
        return f"{file} is a path of this machine; use {parts[0]}_dir() of file_paths"
    if parts[0] != data and not _is_here(project, parts):
        return _beside(project, record.spec.script, file)
    if parts[0] == code:
        with suppress(AmlctlError):
            return left_out(project, code_rules(project), project.root.joinpath(*parts))
        return ""
    if parts[0] == data:
        dataset = _dataset_of(context, parts)
        return _with_dataset(record, dataset) if dataset and dataset not in record.spec.datasets else ""
    wanted = f"working/{parts[0]}"
    why = f"{parts[0]} is not sent with a run; move it to {below_data_blobs(wanted)} and read it there, then "
    return Message(why, _with_dataset(record, wanted))


def _beside(project: Project, script: str, file: str) -> str:
    """What a script opens as if it ran in its own folder, or in `pipeline/`."""
    for folder in dict.fromkeys((PurePosixPath(script).parent, PurePosixPath(project.pipeline_dir.name))):
        if _is_here(project, (*folder.parts, file)):
            below = (folder / file).relative_to(project.pipeline_dir.name)
            return (
                f"a script runs in the folder above pipeline/; open it as pipeline_dir() / {str(below)!r} (file_paths)"
            )
    return ""


def _is_here(project: Project, parts: Sequence[str]) -> bool:
    try:
        return project.root.joinpath(*parts).exists()
    except OSError:
        return False


def _dataset_of(context: Context, parts: Sequence[str]) -> str:
    """The dataset of the store that has the file, or one that this machine could send; else empty."""
    from amlctl.snapshots.heads import read_head  # here, since few scripts fail

    with suppress(AmlctlError):
        for end in range(2, min(len(parts), _DEEPEST)):
            if read_head(context.store, name := "/".join(parts[1 : end + 1])) is not None:
                return name
    return "/".join(parts[1:3]) if _is_here(context.project, parts) else ""


def _with_dataset(record: RunRecord, dataset: str) -> Command:
    """With the config and arguments of the run, if it has any."""
    spec = record.spec
    earlier = ("--from", record.run) if spec.config or spec.arguments or spec.datasets else ()
    options = [part for name in (*spec.datasets, dataset) for part in ("--dataset", below_data_blobs(name))]
    return Command("submit", spec.script.rpartition("/")[2], *earlier, *options)
