"""Which secrets a submit needs, and where their values come from: the command line, the shell, the project.

The value of a secret is in no record, so a run that is repeated has to be given its secrets again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from amlctl.core.hidden_values import ENVIRONMENT_PREFIX, VARIABLE_PREFIX, Hider, hidden_in, option_name
from amlctl.core.job import JobCommand
from amlctl.core.run import RunRecord
from amlctl.errors import UsageError
from amlctl.localfs.project import Project
from amlctl.operations.submit.request import SubmitRequest


def with_named_variables(
    request: SubmitRequest, words: Sequence[str], job: JobCommand | None, earlier: RunRecord | None
) -> SubmitRequest:
    """The request, with a variable from the shell for each NAME of `--secret` that names nothing else.

    Raises UsageError: not a name.
    """
    texts = [*words, *(job.text.split() if job else ()), *request.overrides]
    mentioned = {option_name(text.partition("=")[0]) for text in texts if text.startswith("-") or "=" in text}
    mentioned |= {name.rpartition(".")[2] for name in mentioned} | {option_name(name) for name in request.tags}
    variables = dict(request.variables)
    known = {**(earlier.spec.variables if earlier else {}), **variables}
    for name in request.secrets:
        if not option_name(name) or "=" in name:
            shown = name.partition("=")[0]
            raise UsageError(
                f"--secret takes a name only, not {shown!r} with a value" if shown else "--secret needs a name",
                hint=f"--env {shown or 'NAME'}=VALUE --secret {shown or 'NAME'}",
            )
        if name not in known and option_name(name) not in mentioned:
            variables[name] = None
    return replace(request, variables=variables)


def wanted_variables(request: SubmitRequest, earlier: RunRecord | None) -> dict[str, str | None]:
    """Those of the run that is repeated, and those that were typed; None: the shell has the value."""
    kept = earlier.spec.variables if earlier else {}
    return {**{name: one for name, one in kept.items() if not name.startswith(VARIABLE_PREFIX)}, **request.variables}


def lacking_variables(request: SubmitRequest, earlier: RunRecord | None) -> set[str]:
    """Hidden variables of the run that is repeated, which have no value here."""
    return {
        name
        for name, value in wanted_variables(request, earlier).items()
        if value is None and name not in request.variables and name not in request.caller_variables
    }


def value_of(request: SubmitRequest, name: str, typed: str | None) -> str:
    """Raises UsageError where neither the command line nor the shell has it."""
    value = request.caller_variables.get(name) if typed is None else typed
    if value is None:
        raise UsageError(
            f"the variable {name} has no value here",
            hint=f"give it with --env {name}=…, or set it in your shell",
        )
    return value


def still_hidden(
    request: SubmitRequest, earlier: RunRecord | None, recorded: Sequence[Any], hider: Hider, project: Project
) -> dict[str, str]:
    """Values of the places that `recorded` of the run to repeat still has.

    Raises UsageError naming all that have to be given again.
    """
    if earlier is None:
        return {}
    hidden = {name for name, value in earlier.spec.variables.items() if value is None}
    wanted = {name for value in recorded for name in hidden_in(value)} & hidden - hider.variables.keys()
    given = {**_of_project(project, earlier), **request.caller_variables}
    given.update({name: value for name, value in request.variables.items() if value is not None})
    missing = sorted({name for name in wanted if name not in given} | lacking_variables(request, earlier))
    if missing:
        raise UsageError(
            f"run {earlier.run} has hidden values that must be given again: {', '.join(missing)}",
            hint="set them in your shell, or add " + " ".join(f"--env {name}=…" for name in missing),
            details=[f"{name}: {_what_it_is(name, earlier)}" for name in missing],
        )
    return {name: given[name] for name in sorted(wanted)}


def _of_project(project: Project, earlier: RunRecord) -> Mapping[str, str]:
    """The passwords in the project's environment file, where it is still the same but for them."""
    with suppress(OSError, ValueError):
        hider = Hider({})
        text = hider.environment(project.environment_file.read_text(encoding="utf-8-sig"))
        if text == earlier.spec.environment_content:
            return hider.variables
    return {}


def _what_it_is(name: str, earlier: RunRecord) -> str:
    """In the user's words: the option that it followed, where there was one."""
    if name.startswith(ENVIRONMENT_PREFIX):
        return "of a package index in the environment file"
    if name.startswith(f"{VARIABLE_PREFIX}INPUT_"):
        return "of the address of an input"
    if name.startswith(f"{VARIABLE_PREFIX}SET_"):
        return "of the config"
    place, before = f"<secret:{name}>", ""
    for number, word in enumerate(earlier.spec.arguments, 1):
        if place in word:
            option = word.partition("=")[0] if "=" in word else before
            return (
                f"of the script's option {option}" if option.startswith("-") else f"in the script's argument {number}"
            )
        before = word
    return "of the command" if earlier.spec.command else "of the variable of that name"
