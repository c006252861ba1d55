"""What a shell completes for the value of each option and argument, from this disk only, in under 100 ms."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from amlctl.cli.command_group import COMMANDS
from amlctl.cli.parameters import LAST
from amlctl.errors import AmlctlError

if TYPE_CHECKING:
    from amlctl.localfs.project import Project

_MOST_RUNS = 100
"""Runs whose records are read: the newest ones."""
_MOST_FILES = 50
"""Files that are offered as datasets; a folder of more is a dataset itself."""


class _Typed(NamedTuple):
    """The command so far, and the word that is to be completed."""

    ctx: Any
    word: str

    @property
    def project(self) -> Project:
        """Raises NotFound outside of one."""
        from amlctl.localfs.project import find_project

        return find_project(Path.cwd())


Complete = Callable[[_Typed], Iterable[str]]
"""Values, of which those are offered that begin as the word that is typed."""


class _Offered(NamedTuple):
    """What Typer writes for the shell."""

    value: str
    type: str = "plain"
    help: str | None = None


def offer_values(command: Any, root: Any = None) -> None:
    """Make the options and arguments of a command complete, and let the options of `root` follow it."""
    for inner in getattr(command, "commands", {}).values():
        if inner.params:
            offer_values(inner, root)
    if root is not None:
        command.params = [*command.params, *(one for one in root.params if one.name not in _OWN_OF_ROOT)]
    for param in command.params:
        complete = next((_VALUES[name] for name in (*param.opts, param.metavar) if name in _VALUES), None)
        words = (param.metavar or "").split("|")
        if complete is None and len(words) > 1 and all(map(str.islower, words)):
            complete = _one_of(words)
        if complete is not None:
            param.shell_complete = partial(_offered, complete)


_OWN_OF_ROOT = ("version", "install_completion", "show_completion")


def _offered(complete: Complete, ctx: Any, incomplete: str) -> list[_Offered]:
    begun = incomplete.lower()
    try:
        values = dict.fromkeys(complete(_Typed(ctx, incomplete)))
        return [_Offered(value) for value in values if value.lower().startswith(begun) and value.isprintable()]
    except (AmlctlError, OSError, ValueError, LookupError, TypeError, AttributeError):
        # outside of a project, or a damaged record or settings file
        return []


def _one_of(words: Iterable[str]) -> Complete:
    return lambda typed: words


def _runs(typed: _Typed) -> Iterable[str]:
    """Runs that this machine has seen, of others too."""
    from amlctl.core.run_id import parent_of
    from amlctl.runs.known import shared_folder

    project = typed.project
    seen = shared_folder(project.state_dir)
    runs = [
        *_names(project.state_dir / "runs", os.DirEntry.is_dir),
        *(path.stem for path in sorted(seen.glob("*.json"))),
    ]
    parent = parent_of(f"{typed.word}0")[0]  # of a sweep's run, as far as its number is typed
    children = _record(project, parent).get("children", ()) if parent in runs else ()
    return [*runs, *(one["run"] for one in children), LAST]


def _configs(typed: _Typed) -> Iterable[str]:
    from amlctl.localfs.script_lookup import CONFIG_SUFFIXES

    return _files_of_code(typed, CONFIG_SUFFIXES)


def _files_of_code(typed: _Typed, suffixes: Collection[str]) -> Iterable[str]:
    """By name; by path below `pipeline/` once a folder is typed."""
    from amlctl.localfs.code_rules import code_rules
    from amlctl.localfs.script_lookup import walk_files

    project = typed.project
    paths = [path for path in walk_files(project.pipeline_dir, code_rules(project)) if path.suffix in suffixes]
    base = project.root if typed.word.startswith(f"{project.pipeline_dir.name}/") else project.pipeline_dir
    return sorted(path.relative_to(base).as_posix() if "/" in typed.word else path.name for path in paths)


def _datasets(typed: _Typed) -> Iterable[str]:
    """Folders and files below `data_blobs/`, with or without that name, and those in them, since a shell ends the word
    after one; then datasets that the store had when it was listed last."""
    from amlctl.localfs.known_stores import remembered_datasets

    project, word = typed.project, typed.word
    above = word.rpartition("/")[0]
    prefix = f"{above}/" if above else ""
    base = project.root if word.startswith(f"{project.data_blobs_dir.name}/") else project.data_blobs_dir
    for name in _names(base / above, os.DirEntry.is_dir):
        yield f"{prefix}{name}"
        if f"{prefix}{name}".startswith(word):
            yield from (f"{prefix}{name}/{below}" for below in _names(base / above / name, os.DirEntry.is_dir))
    files = [f"{prefix}{one}" for one in _names(base / above, os.DirEntry.is_file) if f"{prefix}{one}".startswith(word)]
    yield from files if len(files) <= _MOST_FILES else ()
    shown = f"{project.data_blobs_dir.name}/" if base == project.root else ""
    yield from (f"{shown}{name}" for name in remembered_datasets(project.state_dir))


def _workspaces(typed: _Typed) -> Iterable[str]:
    import tomllib

    return ["local", *tomllib.loads(typed.project.settings_file.read_text(encoding="utf-8")).get("workspaces", {})]


def _states(typed: _Typed) -> Iterable[str]:
    from amlctl.core.run_state import RunState

    return [state.value for state in RunState]


def _distributions(typed: _Typed) -> Iterable[str]:
    from amlctl.core.job import DISTRIBUTIONS

    return DISTRIBUTIONS


def _metrics(typed: _Typed) -> Iterable[str]:
    return [name for record in _records(typed.project) for name in record.get("metrics") or ()]


def _snapshots(typed: _Typed) -> Iterable[str]:
    """Of the datasets that were typed: what runs have used, and what a folder store holds."""
    from amlctl.core.store_keys import dataset_folder

    project = typed.project
    for path in typed.ctx.params.get("paths") or typed.ctx.args:
        try:
            dataset = project.dataset_name(path, project.root)
        except AmlctlError:
            continue
        yield from filter(None, ((record.get("datasets") or {}).get(dataset) for record in _records(project)))
        stored = project.state_dir / "store" / dataset_folder(dataset)
        yield from sorted(file.name.partition("-")[0] for file in stored.glob("*-*"))


def _logs(typed: _Typed) -> Iterable[str]:
    """Names of the logs of the run that was typed."""
    from amlctl.core.job import log_names

    run = next(iter(typed.ctx.args), None) or typed.ctx.params.get("run") or LAST
    chosen = next((one for one in _records(typed.project) if run == LAST or str(one.get("run")).startswith(run)), {})
    return log_names(int(chosen["processes"]) * int(chosen["instances"]))


def _records(project: Project) -> Iterator[dict[str, Any]]:
    """Records of the newest runs that this machine has seen, as they stand in their files."""
    from amlctl.runs.known import read_order

    for run in read_order(project.state_dir)[: -_MOST_RUNS - 1 : -1]:
        yield _record(project, run)


def _record(project: Project, run: str) -> dict[str, Any]:
    """Empty where it cannot be read."""
    import json  # most values need no record

    try:
        record = json.loads((project.state_dir / "runs" / run / "record.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _names(folder: Path, is_wanted: Callable[[os.DirEntry[str]], bool]) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(one.name for one in entries if one.name[0] != "." and is_wanted(one))
    except OSError:
        return []


_VALUES: dict[str, Complete] = {
    **dict.fromkeys(("RUN", "RUN...", "RUN RUN..."), _runs),
    **dict.fromkeys(("D", "DATASET", "DATASET...", "PATH..."), _datasets),
    **dict.fromkeys(("--config", "--config-path"), _configs),
    **dict.fromkeys(
        ("--compute", "name"), lambda typed: sorted(path.stem for path in typed.project.compute_dir.glob("*.y*ml"))
    ),
    **dict.fromkeys(("--metric", "--sort"), _metrics),
    "SCRIPT": lambda typed: _files_of_code(typed, (".py",)),
    "COMMAND...": _one_of(COMMANDS),
    "--workspace": _workspaces,
    "--status": _states,
    "--distribution": _distributions,
    "--experiment": lambda typed: filter(None, (one.get("experiment") for one in _records(typed.project))),
    "--snapshot": _snapshots,
    "--file": _logs,
    "--env-from": _one_of(["current", "active"]),
}
"""By the name of the option or argument, or by its metavar. One such as `mount|download` lists its values itself; one
with a word in capitals, such as `METRIC|time`, does not."""
