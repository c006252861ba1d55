"""`amlctl submit`."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amlctl.cli.arguments import before_script, new_spellings, said_yes
from amlctl.cli.command_group import AppCommand, TyperApp, examples, option
from amlctl.cli.commands.env import FROM
from amlctl.cli.invocation import Invocation, invocation
from amlctl.cli.output import open_in_desktop
from amlctl.cli.questions import is_confirmed, on_interrupt
from amlctl.core.message import Command, Message, did_you_mean, script_word
from amlctl.errors import NeedsConfirmation, UsageError

if TYPE_CHECKING:
    from amlctl.core.sweep import Sweep
    from amlctl.operations.submit.result import SubmitResult

_SCRIPT_ARGUMENTS = "amlctl.script_arguments"

LEFT_RUNNING = 130
"""Exit code after a detach at Ctrl-C: how the run ends is not known yet."""

_TYPO = 0.75
"""How similar to one of our options a typo is; more often it is an option of the script."""

_SCRIPT_SUFFIXES = (".py", ".yml", ".yaml")


class ScriptCommand(AppCommand):
    """A command that keeps what follows `--` for the script, and suggests that place for what it does not know."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.allow_extra_args = True  # parse_args below reports them with a better hint

    def parse_args(self, ctx: Any, args: Any) -> Any:
        typed, border = list(args), args.index("--") if "--" in args else len(args)
        ctx.meta[_SCRIPT_ARGUMENTS] = tuple(args[border + 1 :])
        try:
            extra = super().parse_args(ctx, args[:border])
        except typer.TyperException as error:
            unknown = getattr(error, "option_name", None)
            if not unknown or unknown in self._options():
                raise
            raise self._error(f"No such option: {unknown}", typed, unknown) from None
        if extra and not ctx.resilient_parsing:
            raise self._error(f"Unexpected argument {extra[0]!r}", typed, extra[0])
        return extra

    def _options(self) -> set[str]:
        return {name for param in self.params for name in (*param.opts, *param.secondary_opts)}

    def _error(self, message: str, typed: Sequence[str], unknown: str) -> UsageError:
        scripts = [
            one for one in typed if one.startswith(unknown) and one.endswith(_SCRIPT_SUFFIXES) and "=" not in one
        ]
        if scripts and unknown.startswith("-"):
            words = (script_word(one) if one in scripts else one for one in typed)
            return UsageError(message, hint=Command("submit", *words))
        meant = _as_meant(typed, unknown, self._options())
        near = did_you_mean(unknown, self._options(), _TYPO)
        rule = "put arguments of the script after --"
        hint = Message(rule, ": ", meant) if meant else Message(rule, "; see ", Command("submit", "--help"))
        return UsageError(message, hint=Message(f"{near} Otherwise ", hint) if near else hint)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- ARGS...]"]


def _as_meant(typed: Sequence[str], unknown: str, options: Collection[str]) -> Command | None:
    """The command with the unknown word, and what follows up to an option of ours, moved behind `--`; None without a
    script."""
    border = typed.index("--") if "--" in typed else len(typed)
    names = [argument.partition("=")[0] for argument in typed[:border]]
    short = unknown if len(unknown) == 2 and unknown[0] == "-" else unknown + "="  # of `-lr`, `-l` is unknown
    begin = next((i for i in range(border) if typed[i] == unknown or typed[i].startswith(short)), border)
    end = next((i for i in range(begin + 1, border) if names[i] in options), border)
    kept = [*typed[:begin], *typed[end:border]]
    if begin == border or not any(argument.endswith(_SCRIPT_SUFFIXES) for argument in kept):
        return None
    return Command("submit", *kept, "--", *typed[begin:end], *typed[border + 1 :])


app = TyperApp()

_EXAMPLES = examples(
    "amlctl submit model_train.py --config baseline.json # upload, run, fetch",
    "amlctl submit model_train.py --config baseline.json --set training.epochs=3",
    "amlctl submit model_train.py --detach # do not wait for it",
    "amlctl submit model_train.py --config baseline.json --set lr=0.1,0.3 --sweep",
    "amlctl submit preprocess.py -- --limit 100 # script arguments",
    "amlctl submit model_train.py --processes 2 # two processes",
    "amlctl submit jobs/train.yml # an Azure ML job file",
    "amlctl submit --from @last # the same once more",
    "amlctl --workspace cloud submit --from @last # the same in Azure ML",
    note="A comma separates values with --sweep only; 'layers=[1,2],[3]' and 'name=\"a,b\",c' are two each.\n"
    "Datasets, produces and compute can be declared in the script, in a # /// script block.\n"
    "Job files are those of az ml job create; sweeps and pipelines require a workspace of Azure ML.\n"
    "The exit code is 0 only if the run Completed; 1 if it failed or was canceled.",
)

_SCRIPT = "Script"
_DATA = "Data"
_ENVIRONMENT = "Environment"
_COMPUTE = "Compute"
_SEVERAL = "Several processes"
_RUN = "Run"
_SWEEP = "Sweep"
_MOST_UNASKED = 100
"""Runs that a sweep starts without asking."""


def _hidden(name: str) -> Any:
    return typer.Option(name, hidden=True, help="Name of this option in the first amlctl")


@app.command(epilog=_EXAMPLES, cls=ScriptCommand)
def submit(
    ctx: typer.Context,
    script: Annotated[
        str | None,
        typer.Argument(
            metavar="SCRIPT",
            help="Script under pipeline/, by path or unique name, or an Azure ML job file (job.yml)",
        ),
    ] = None,
    config: Annotated[
        str | None, option("Pass a JSON or YAML file; the script receives --config PATH", panel=_SCRIPT, metavar="FILE")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        option("Override a value of the config; may be repeated", "--set", panel=_SCRIPT, metavar="KEY=VALUE"),
    ] = None,
    datasets: Annotated[
        list[str] | None,
        option(
            "Provide a dataset to the script; may be repeated",
            "--dataset",
            panel=_DATA,
            metavar="D",
        ),
    ] = None,
    produces: Annotated[
        list[str] | None, option("Publish a dataset that the script writes; may be repeated", panel=_DATA, metavar="D")
    ] = None,
    register: Annotated[
        str, option("Register the produced dataset as a data asset of the workspace", panel=_DATA, metavar="NAME")
    ] = "",
    is_syncing: Annotated[
        bool, option("Sync the datasets first, or use the store's latest snapshots", "--sync/--no-sync", panel=_DATA)
    ] = True,
    mode: Annotated[
        str | None, option("Link datasets into the run, or copy them", panel=_DATA, metavar="mount|download")
    ] = None,
    variables: Annotated[
        list[str] | None,
        option("Set a variable; K alone copies its value from your shell", "--env", panel=_ENVIRONMENT, metavar="K=V"),
    ] = None,
    secrets: Annotated[
        list[str] | None,
        option(
            "Hide the value of a variable (copied from your shell), a script option or a setting; may be repeated",
            "--secret",
            panel=_ENVIRONMENT,
            metavar="NAME",
        ),
    ] = None,
    env_from: Annotated[
        str | None, option(FROM, "--env-from", panel=_ENVIRONMENT, metavar="active|current|PATH")
    ] = None,
    compute: Annotated[str | None, option("Run on this compute target", panel=_COMPUTE, metavar="NAME")] = None,
    timeout: Annotated[
        str | None, option("Stop the script after 90s, 15m, 2h or 1d", panel=_COMPUTE, metavar="TIME")
    ] = None,
    instances: Annotated[
        int | None, option("Run on N nodes; on this machine each has its own folder", panel=_SEVERAL, metavar="N")
    ] = None,
    processes: Annotated[
        int | None, option("Start the script N times on each instance (default: pytorch)", panel=_SEVERAL, metavar="N")
    ] = None,
    distribution: Annotated[
        str | None,
        option("Connect the processes as Azure ML does: pytorch, mpi or tensorflow", panel=_SEVERAL, metavar="KIND"),
    ] = None,
    from_run: Annotated[
        str | None,
        option(
            "Repeat a run with the same code, data and config",
            "--from",
            panel=_RUN,
            metavar="RUN",
        ),
    ] = None,
    experiment: Annotated[str | None, option("Add the run to this experiment", panel=_RUN, metavar="NAME")] = None,
    name: Annotated[str | None, option("Name the run; its id starts with it", panel=_RUN, metavar="NAME")] = None,
    tags: Annotated[list[str] | None, option("Add a tag; may be repeated", "--tag", panel=_RUN, metavar="K=V")] = None,
    after: Annotated[
        list[str] | None,
        option(
            "Wait until this run has completed, then submit; may be repeated",
            "--after",
            panel=_RUN,
            metavar="RUN",
        ),
    ] = None,
    is_sweep: Annotated[
        bool, option("Run every combination of --set KEY=VALUE,VALUE", "--sweep", panel=_SWEEP)
    ] = False,
    parallel: Annotated[
        int | None,
        option("Run N of them at a time; default: the slots of the target", min=1, panel=_SWEEP, metavar="N"),
    ] = None,
    metric: Annotated[
        str | None,
        option(
            "Tell the best by this metric (min:NAME, max:NAME)",
            panel=_SWEEP,
            metavar="METRIC",
        ),
    ] = None,
    yes: Annotated[
        bool, option(f"Start more than {_MOST_UNASKED} runs without asking", "--yes", "-y", panel=_SWEEP)
    ] = False,
    is_needed_only: Annotated[
        bool, option("Show an equal run that Completed instead of running it again", "--needed", panel=_RUN)
    ] = False,
    is_detached: Annotated[bool, option("Start the run without waiting for it", "--detach", panel=_RUN)] = False,
    is_fetching: Annotated[
        bool | None, option("Download outputs when the run finishes", "--fetch/--no-fetch", panel=_RUN)
    ] = None,
    is_dry_run: Annotated[
        bool, option("Show what would be uploaded and run, and do nothing", "--dry-run", panel=_RUN)
    ] = False,
    old_script: Annotated[str | None, _hidden("--script-path")] = None,
    old_experiment: Annotated[str | None, _hidden("--experiment-name")] = None,
    old_config: Annotated[str | None, _hidden("--config-path")] = None,
    old_datasets: Annotated[list[str] | None, _hidden("--required-datasets-path")] = None,
    old_syncing: Annotated[str | None, _hidden("--should-upload-datasets")] = None,
    old_compute: Annotated[str | None, _hidden("--compute-target")] = None,
    old_datastore: Annotated[str | None, _hidden("--datastore")] = None,
    old_opening: Annotated[str | None, _hidden("--should-open-url")] = None,
) -> int:
    """Run a script: sync data, upload code, prepare environment and compute, stream the log, fetch outputs"""
    from amlctl.core.events import Note
    from amlctl.core.run import parse_duration_s
    from amlctl.operations.environment import chosen_environment
    from amlctl.operations.logs import FollowOptions
    from amlctl.operations.submit.sources import SubmitRequest
    from amlctl.operations.submit.submit import plan as plan_operation
    from amlctl.operations.submit.submit import submit as submit_operation

    call = invocation(ctx)
    call.is_resumable = not is_dry_run
    for sentence in new_spellings(before_script(sys.argv[1:])):
        call.reporter(Note(sentence))
    if is_detached and is_fetching:
        raise UsageError(
            "--detach and --fetch exclude each other: --detach does not wait for the outputs",
            hint=Message("remove one of them; fetch later with ", Command("fetch", "@last")),
        )
    wanted_datasets = (datasets or []) + (old_datasets or [])
    chosen = chosen_environment(env_from, call.cwd)
    spec = {
        "script": _first(script, old_script),
        "config": _first(config, old_config),
        "datasets": wanted_datasets or None,
        "arguments": ctx.meta.get(_SCRIPT_ARGUMENTS, ()),
        "experiment": _first(experiment, old_experiment),
        "is_config_positional": True if config is None and old_config is not None else None,
        "compute": _first(compute, old_compute),
        "mode": mode,
        "distribution": distribution,
        "processes": processes,
        "instances": instances,
        "produces": produces or None,
        "environment": None if chosen is None else chosen.id,
        "variables": _pairs("--env", variables or ()),
        "timeout_s": parse_duration_s(timeout) if timeout is not None else None,
        "tags": _tags(tags or ()),
        "name": name,
    }
    request = SubmitRequest(
        spec,
        overrides=() if is_sweep else tuple(overrides or ()),
        sweep=_sweep(overrides or (), parallel, metric, is_sweep=is_sweep),
        secrets=tuple(secrets or ()),
        from_run=from_run,
        after=tuple(after or ()),
        register=register,
        is_needed_only=is_needed_only,
        sync=is_syncing and said_yes("--should-upload-datasets", old_syncing, default=True),
        command_line=("amlctl", *sys.argv[1:]),
        cwd=call.cwd,
        caller_variables=os.environ,
    )
    app_ = call.app
    if request.sweep is not None and not (yes or is_dry_run):
        _ask(request.sweep, call)
    if is_dry_run:
        from amlctl.cli.render.run_text import plan_lines

        plan = plan_operation(app_, request)
        call.result(plan.to_json(), plan_lines(plan))
        return 0
    if said_yes("--should-open-url", old_opening, default=False) and call.output.can_ask:
        call.reporter.open_page = open_in_desktop
    choose = on_interrupt(app_.settings.submit.on_interrupt, call.output, call.pause)
    result = submit_operation(
        app_,
        request,
        is_detached=is_detached,
        fetch_outputs=app_.settings.submit.fetch if is_fetching is None else is_fetching,
        following=FollowOptions(choose, is_watched=call.output.shows_runs),
    )
    if call.reporter.open_page is not None and result.record.studio_url:  # it was not followed while it was active
        call.reporter.open_page(result.record.studio_url)
    return _report(call, result, is_detached=is_detached)


def _report(call: Invocation, result: SubmitResult, *, is_detached: bool) -> int:
    """The document however the run ended; in text the reason of a failure comes last, where it is seen."""
    from amlctl.cli.render.run_text import result_lines

    is_announced = is_detached and call.reporter.shows_run_id
    lines = result_lines(result, call.app.project.root, call.output.width, is_announced=is_announced)
    call.result(result.to_json(), lines)
    failure = result.failure
    if failure is None:
        return 0 if result.record.is_final or is_detached else LEFT_RUNNING
    if not call.is_json:
        call.output.error(failure)
    return failure.exit_code


def _sweep(overrides: Sequence[str], parallel: int | None, metric: str | None, *, is_sweep: bool) -> Sweep | None:
    if is_sweep:
        from amlctl.core.sweep import Sweep, combinations

        return Sweep(combinations(overrides), parallel, metric or "")
    for name, value in (("--parallel", parallel), ("--metric", metric)):
        if value is not None:
            raise UsageError(f"{name} is for sweeps", hint="add --sweep")
    return None


def _ask(sweep: Sweep, call: Invocation) -> None:
    """Raises NeedsConfirmation."""
    if len(sweep.combinations) > _MOST_UNASKED:
        error = NeedsConfirmation(f"this sweep has {len(sweep.combinations):,} runs", hint="--yes starts them")
        if not is_confirmed(error, call.output):
            raise error


def _first(*values: str | None) -> str | None:
    """The first that was typed, even if it is empty, which is an error of its own."""
    return next((value for value in values if value is not None), None)


def _pairs(option_name: str, typed: Sequence[str]) -> dict[str, str | None]:
    """None for a name without a value. Raises UsageError for a name that is there twice."""
    values: dict[str, str | None] = {}
    for pair in typed:
        name, equals, value = pair.partition("=")
        if name in values:
            raise UsageError(f"{option_name} {name} was given twice", hint="remove one")
        values[name] = value if equals else None
    return values


def _tags(typed: Sequence[str]) -> dict[str, str | None]:
    tags = _pairs("--tag", typed)
    for name, value in tags.items():
        if not name or value is None:
            raise UsageError(f"Invalid --tag {name!r}", hint="use --tag NAME=VALUE")
    return tags
