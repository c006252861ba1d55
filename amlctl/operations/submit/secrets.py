"""Which secrets a submit needs, and where their values come from: the command line, the shell, the project.

The value of a secret is in no record, so a run that is repeated has to be given its secrets again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from amlctl.core.hidden_values import ENVIRONMENT_PREFIX, VARIABLE_PREFIX, Hider, hidden_in, option_name
from amlctl.core.run import RunSpec
from amlctl.errors import UsageError
from amlctl.localfs.project import Project
from amlctl.operations.submit.sources import Sources, SubmitRequest


class SubmitSecrets:
    """The variables of a submit, those that are secret apart. `hider` replaces secrets in everything that is recorded.

    `variables` are those for the record (None: secret); `values` are the secret ones.
    """

    def __init__(self, request: SubmitRequest, sources: Sources) -> None:
        """Raises UsageError: not a name, or a variable without a value."""
        spec = sources.merged.spec
        self._request, self._earlier = request, sources.earlier
        self._given = {**sources.given_variables, **_named_variables(request, sources)}
        wanted = {**spec.variables, **self._given}
        self._missing = {
            name
            for name, value in wanted.items()
            if value is None and name not in self._given and name not in request.caller_variables
        }
        self.variables: dict[str, str | None] = {}
        self.values: dict[str, str] = {}
        by_name = Hider({}, request.secrets)
        for name, typed in wanted.items():
            if name in self._missing:
                continue  # `restore` reports it, with all other hidden values
            if not name or "=" in name or "\0" in name:
                raise UsageError(f"{name!r} is not a valid variable name", hint="--env NAME=VALUE")
            value = request.caller_variables.get(name) if typed is None else typed
            if value is None:
                raise UsageError(
                    f"the variable {name} has no value here", hint=f"set it with --env {name}=… or in your shell"
                )
            is_secret = typed is None or by_name.is_secret(name, value)
            self.variables[name] = None if is_secret else value
            if is_secret:
                self.values[name] = value
        self.hider = Hider(self.values, request.secrets)

    def restore(self, recorded: Sequence[Any], project: Project) -> None:
        """Find the values of the places that `recorded` of the run to repeat still has.

        Raises UsageError naming all that have to be given again.
        """
        earlier = self._earlier
        if earlier is None:
            return
        hidden = {name for name, value in earlier.spec.variables.items() if value is None}
        wanted = {name for value in recorded for name in hidden_in(value)} & hidden - self.hider.variables.keys()
        given = {**_of_project(project, earlier.spec), **self._request.caller_variables}
        given.update({name: value for name, value in self._given.items() if value is not None})
        missing = sorted({name for name in wanted if name not in given} | self._missing)
        if missing:
            raise UsageError(
                f"run {earlier.run} has hidden values that must be given again: {', '.join(missing)}",
                hint="set them in your shell, or add " + " ".join(f"--env {name}=…" for name in missing),
                details=[f"{name}: {_what_it_is(name, earlier.spec)}" for name in missing],
            )
        self.values.update((name, given[name]) for name in sorted(wanted))

    def all_values(self) -> dict[str, str]:
        """Also of what `hider` has found."""
        return {**self.values, **self.hider.variables}


def _named_variables(request: SubmitRequest, sources: Sources) -> dict[str, None]:
    """A variable from the shell for each NAME of `--secret` that names nothing else."""
    spec = sources.merged.spec
    texts = [*spec.arguments, *(spec.command or "").split(), *request.overrides]
    mentioned = {option_name(text.partition("=")[0]) for text in texts if text.startswith("-") or "=" in text}
    mentioned |= {name.rpartition(".")[2] for name in mentioned}
    mentioned |= {option_name(name) for name in request.spec.get("tags") or ()}
    mentioned |= {option_name(name) for name in (sources.job.spec.values["tags"] if sources.job else ())}
    known = {**(sources.earlier.spec.variables if sources.earlier else {}), **sources.given_variables}
    found: dict[str, None] = {}
    for name in request.secrets:
        if not option_name(name) or "=" in name:
            shown = name.partition("=")[0]
            raise UsageError(
                f"--secret takes a name only, not {shown!r} with a value" if shown else "--secret needs a name",
                hint=f"--env {shown or 'NAME'}=VALUE --secret {shown or 'NAME'}",
            )
        if name not in known and option_name(name) not in mentioned:
            found[name] = None
    return found


def _of_project(project: Project, earlier: RunSpec) -> Mapping[str, str]:
    """The passwords in the project's environment file, where it is still the same but for them."""
    with suppress(OSError, ValueError):
        hider = Hider({})
        text = hider.environment(project.environment_file.read_text(encoding="utf-8-sig"))
        if text == earlier.environment_content:
            return hider.variables
    return {}


def _what_it_is(name: str, earlier: RunSpec) -> str:
    """In the user's words: the option that it followed, where there was one."""
    if name.startswith(ENVIRONMENT_PREFIX):
        return "of a package index in the environment file"
    if name.startswith(f"{VARIABLE_PREFIX}INPUT_"):
        return "of the address of an input"
    if name.startswith(f"{VARIABLE_PREFIX}SET_"):
        return "of the config"
    place, before = f"<secret:{name}>", ""
    for number, word in enumerate(earlier.arguments, 1):
        if place in word:
            option = word.partition("=")[0] if "=" in word else before
            return (
                f"of the script's option {option}" if option.startswith("-") else f"in the script's argument {number}"
            )
        before = word
    return "of the command" if earlier.command else "of the variable of that name"
