"""What a shell completes for the value of each option and argument, from this disk only, in under 100 ms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from amlctl.cli.completion import LAST, complete_dataset, current_project, files_of_code, starting_with
from amlctl.errors import AmlctlError

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
    from amlctl.localfs.script_lookup import CONFIG_SUFFIXES

    return files_of_code(incomplete, CONFIG_SUFFIXES)


def _compute(ctx: Any, incomplete: str) -> list[str]:
    project = current_project()
    names = [] if project is None else sorted(path.stem for path in project.compute_dir.glob("*.y*ml"))
    return starting_with(incomplete, names)


def _workspaces(ctx: Any, incomplete: str) -> list[str]:
    import tomllib

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


def _metrics(ctx: Any, incomplete: str) -> list[str]:
    names = (name for record in _records() for name in record.get("metrics") or ())
    return starting_with(incomplete, dict.fromkeys(names))


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

    run = next(iter(ctx.args), None) or ctx.params.get("run") or LAST
    chosen = next((one for one in _records() if run == LAST or str(one.get("run")).startswith(run)), {})
    try:
        return starting_with(incomplete, log_names(int(chosen["processes"]) * int(chosen["instances"])))
    except (KeyError, ValueError, TypeError):
        return []


def _records() -> Iterator[dict[str, Any]]:
    """Records of the newest runs that this machine has seen, as they stand in their files."""
    project = current_project()
    if project is None:
        return
    import json  # most values need no record

    from amlctl.runs.known import read_order

    for run in read_order(project.state_dir)[: -_MOST_RUNS - 1 : -1]:
        try:
            record = json.loads((project.state_dir / "runs" / run / "record.json").read_bytes())
        except (OSError, ValueError):
            continue
        if isinstance(record, dict):
            yield record


_VALUES: dict[str, Complete] = {
    "--config": _configs,
    "--config-path": _configs,
    "--compute": _compute,
    "--workspace": _workspaces,
    "--status": _states,
    "--distribution": _distributions,
    "--experiment": _experiments,
    "--metric": _metrics,
    "--snapshot": _snapshots,
    "--sort": _metrics,
    "--file": _logs,
    "name": _compute,
    "--env-from": partial(_one_of, ["current", "active"]),
    "--produces": lambda ctx, incomplete: complete_dataset(incomplete),
}
"""By the name of the option or argument. A metavar such as `mount|download` lists its values itself; one
with a word in capitals, such as `METRIC|time`, does not."""
