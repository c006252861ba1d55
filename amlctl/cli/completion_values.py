"""What a shell completes for the value of each option and argument, from this disk only, in under 100 ms."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from amlctl.cli.completion import complete_dataset, complete_run, current_project, starting_with
from amlctl.errors import AmlctlError
from amlctl.localfs.project import Project

_MOST_RUNS = 100
"""Runs whose records are read: the newest ones."""

Complete = Callable[[Any, str], list[str]]
"""Values that begin as the word that is being typed, in the context of the command so far."""


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
            complete = partial(_one_of, words)
        if complete is not None:
            param.shell_complete = partial(_offered, complete)


_OWN_OF_ROOT = ("version", "install_completion", "show_completion")


def _offered(complete: Complete, ctx: Any, incomplete: str) -> list[_Offered]:
    return [_Offered(value) for value in complete(ctx, incomplete) if value.isprintable()]


def _one_of(words: list[str], ctx: Any, incomplete: str) -> list[str]:
    return starting_with(incomplete, words)


def _configs(ctx: Any, incomplete: str) -> list[str]:
    """Configs below `pipeline/` by name, by path once a folder is typed."""
    project = current_project()
    if project is None:
        return []
    from amlctl.localfs.code_rules import code_rules
    from amlctl.localfs.script_lookup import CONFIG_SUFFIXES, walk_files

    paths = [one for one in walk_files(project.pipeline_dir, code_rules(project)) if one.suffix in CONFIG_SUFFIXES]
    base = project.root if incomplete.startswith("pipeline/") else project.pipeline_dir
    shown = {path.relative_to(base).as_posix() if "/" in incomplete else path.name for path in paths}
    return starting_with(incomplete, sorted(shown))


def _compute(ctx: Any, incomplete: str) -> list[str]:
    project = current_project()
    names = [] if project is None else sorted(path.stem for path in project.compute_dir.glob("*.y*ml"))
    return starting_with(incomplete, names)


def _workspaces(ctx: Any, incomplete: str) -> list[str]:
    project = current_project()
    if project is None:
        return []
    try:
        sections = tomllib.loads(project.settings_file.read_text(encoding="utf-8")).get("workspaces", {})
    except (OSError, ValueError):
        return []
    return starting_with(incomplete, dict.fromkeys(["local", *sections]))


def _states(ctx: Any, incomplete: str) -> list[str]:
    from amlctl.core.run_state import RunState

    return [state.value for state in RunState if state.value.lower().startswith(incomplete.lower())]


def _distributions(ctx: Any, incomplete: str) -> list[str]:
    from amlctl.core.job import DISTRIBUTIONS

    return starting_with(incomplete, DISTRIBUTIONS)


def _experiments(ctx: Any, incomplete: str) -> list[str]:
    names = (record.get("experiment") for record in _records())
    return starting_with(incomplete, dict.fromkeys(filter(None, names)))


def _snapshots(ctx: Any, incomplete: str) -> list[str]:
    """Of the datasets that were typed: what runs have used, and what a folder store holds."""
    from amlctl.core.store_keys import dataset_folder

    project = current_project()
    if project is None:
        return []
    found: dict[str, None] = {}
    for path in ctx.params.get("paths") or ctx.args:
        try:
            dataset = project.dataset_name(path, project.root)
        except AmlctlError:
            continue
        for record in _records():
            found.update(dict.fromkeys(filter(None, [(record.get("datasets") or {}).get(dataset)])))
        stored = project.state_dir / "store" / dataset_folder(dataset)
        found.update(dict.fromkeys(sorted(file.name.partition("-")[0] for file in stored.glob("*-*"))))
    return starting_with(incomplete, found)


def _logs(ctx: Any, incomplete: str) -> list[str]:
    """Names of the logs of the run that was typed."""
    from amlctl.core.job import log_names
    from amlctl.runs.records import load_local_record

    project, run = current_project(), next(iter(ctx.args), ctx.params.get("run"))
    if project is None:
        return []
    known = complete_run("" if run in (None, "@last") else run)
    newest = next(_newest_runs(project), None)
    chosen = newest if run in (None, "@last") else next(iter(known), None)
    try:
        record = load_local_record(project.state_dir, chosen) if chosen else None
    except (AmlctlError, OSError):
        return []
    return [] if record is None else starting_with(incomplete, log_names(record.spec.process_group.world_size))


def _records() -> Iterator[dict[str, Any]]:
    """Records of the newest runs that this machine has seen, as they stand in their files."""
    project = current_project()
    if project is None:
        return
    for number, run in enumerate(_newest_runs(project)):
        if number == _MOST_RUNS:
            return
        try:
            yield json.loads((project.state_dir / "runs" / run / "record.json").read_bytes())
        except (OSError, ValueError):
            continue


def _newest_runs(project: Project) -> Iterator[str]:
    from amlctl.runs.records import read_order

    yield from reversed(read_order(project.state_dir))


_VALUES: dict[str, Complete] = {
    "--config": _configs,
    "--config-path": _configs,
    "--compute": _compute,
    "--workspace": _workspaces,
    "--status": _states,
    "--distribution": _distributions,
    "--experiment": _experiments,
    "--snapshot": _snapshots,
    "--file": _logs,
    "name": _compute,
    "--env-from": partial(_one_of, ["current", "active"]),
    "--produces": lambda ctx, incomplete: complete_dataset(incomplete),
}
"""By the name of the option or argument. A metavar such as `mount|download` lists its values itself; one
with a word in capitals, such as `METRIC|time`, does not."""
