"""`amlctl submit`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from amlctl.cli.commands.env import is_current
from amlctl.cli.completion import complete_dataset, complete_run, complete_script
from amlctl.cli.interrupt import on_interrupt
from amlctl.cli.invocation import Invocation, invocation
from amlctl.cli.render.text import runs
from amlctl.core.message import Command, Message
from amlctl.core.run import parse_duration_s
from amlctl.errors import UsageError
from amlctl.operations.runs import RunAt, resolve_run
from amlctl.operations.submit.request import SubmitRequest
from amlctl.operations.submit.result import SubmitResult
from amlctl.operations.submit.submit import plan as plan_operation
from amlctl.operations.submit.submit import submit as submit_operation

_SCRIPT_ARGUMENTS = "amlctl.script_arguments"

LEFT_RUNNING = 130
"""Exit code where Ctrl-C ended the watching and left the run alone: how it ends is not known yet."""


class ScriptCommand(TyperCommand):
    """A command that keeps what follows `--` for the script, whatever it looks like."""

    def parse_args(self, ctx: Any, args: Any) -> Any:
        if "--" in args:
            border = args.index("--")
            ctx.meta[_SCRIPT_ARGUMENTS] = tuple(args[border + 1 :])
            args = args[:border]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- ARGS...]"]


app = typer.Typer(add_completion=False)

_EXAMPLES = """\
Examples:

  amlctl submit model_train.py --config baseline.json
  amlctl submit model_train.py --config baseline.json --set training.epochs=3
  amlctl submit model_train.py --detach, then amlctl logs @last -f
  amlctl submit preprocess.py -- --limit 100
  amlctl submit model_train.py --processes 2
  amlctl submit jobs/train.yml
  amlctl submit --from @last
  amlctl --workspace cloud submit --from @last, which may have run here

What a script needs can stand in the script: datasets, produces, compute in a # /// script block.
A job file is one of Azure ML's (az ml job create); sweeps and pipelines need a workspace there.
Exit code 0 only if the run Completed; 1 if it failed or was cancelled.
"""


def _hidden(name: str) -> Any:
    return typer.Option(name, hidden=True, help="As in the first amlctl.")


@app.command(epilog=_EXAMPLES, cls=ScriptCommand)
def submit(
    ctx: typer.Context,
    script: Annotated[
        str | None,
        typer.Argument(
            metavar="SCRIPT",
            autocompletion=complete_script,
            help="A script under pipeline/, a name that is unique there, or an Azure ML job file: job.yml.",
        ),
    ] = None,
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help="A JSON or YAML file; the script receives --config PATH.")
    ] = None,
    datasets: Annotated[
        list[str] | None,
        typer.Option(
            "--dataset",
            metavar="D",
            autocompletion=complete_dataset,
            help="A dataset that the script reads; may be repeated.",
        ),
    ] = None,
    produces: Annotated[
        list[str] | None, typer.Option(metavar="D", help="A dataset that the script writes; may be repeated.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a value of the config.")
    ] = None,
    variables: Annotated[
        list[str] | None,
        typer.Option("--env", metavar="K=V", help="A variable for the script; K alone takes it from here."),
    ] = None,
    secrets: Annotated[
        list[str] | None,
        typer.Option(
            "--secret",
            metavar="NAME",
            help="Hide the value of a variable (taken from the shell), a script option or a setting; may be repeated.",
        ),
    ] = None,
    experiment: Annotated[str | None, typer.Option(metavar="NAME", help="The experiment of the run.")] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The run's name: the beginning of its id.")] = None,
    tags: Annotated[list[str] | None, typer.Option("--tag", metavar="K=V", help="A tag; may be repeated.")] = None,
    compute: Annotated[str | None, typer.Option(metavar="NAME", help="A compute target of compute/.")] = None,
    mode: Annotated[
        str | None, typer.Option(metavar="mount|download", help="Link datasets into the run, or copy them.")
    ] = None,
    distribution: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="How several processes find each other: pytorch, mpi or tensorflow, as in Azure ML."
        ),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(metavar="N", help="Start the script N times on each instance (as pytorch).")
    ] = None,
    instances: Annotated[
        int | None, typer.Option(metavar="N", help="Nodes; on this machine each has a folder of its own.")
    ] = None,
    env_from: Annotated[
        str | None, typer.Option(metavar="current", help="Run in the interpreter that amlctl runs in.")
    ] = None,
    timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="End the script after 90s, 15m, 2h or 1d.")
    ] = None,
    from_run: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="RUN", autocompletion=complete_run, help="Repeat a run: same code, data and config."
        ),
    ] = None,
    is_syncing: Annotated[
        bool, typer.Option("--sync/--no-sync", help="Sync the datasets first, or use the store's snapshots.")
    ] = True,
    is_fetching: Annotated[
        bool | None, typer.Option("--fetch/--no-fetch", help="Bring the outputs at the end.")
    ] = None,
    is_detached: Annotated[bool, typer.Option("--detach", help="Start the run and do not wait for it.")] = False,
    is_dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be sent and run.")] = False,
    old_script: Annotated[str | None, _hidden("--script-path")] = None,
    old_experiment: Annotated[str | None, _hidden("--experiment-name")] = None,
    old_config: Annotated[str | None, _hidden("--config-path")] = None,
    old_datasets: Annotated[list[str] | None, _hidden("--required-datasets-path")] = None,
    old_syncing: Annotated[str | None, _hidden("--should-upload-datasets")] = None,
) -> int:
    """Run a script the whole way: sync, code, environment, compute, run, log, outputs."""
    call = invocation(ctx)
    if is_detached and is_fetching:
        raise UsageError(
            "--detach does not wait for the outputs that --fetch wants",
            hint=Message("leave one out; later: ", Command("fetch", "@last")),
        )
    wanted_datasets = (datasets or []) + (old_datasets or [])
    request = SubmitRequest(
        script=_first(script, old_script) or "",
        config=_first(config, old_config),
        datasets=tuple(wanted_datasets) or None,
        arguments=ctx.meta.get(_SCRIPT_ARGUMENTS, ()),
        experiment=_first(experiment, old_experiment),
        compute=compute,
        mode=mode,
        distribution=distribution,
        processes=processes,
        instances=instances,
        sync=is_syncing and _said_yes(old_syncing),
        produces=tuple(produces) if produces else None,
        variables=_variables(variables or ()),
        secrets=tuple(secrets or ()),
        overrides=tuple(overrides or ()),
        from_run=from_run,
        env_from_current=is_current(env_from),
        timeout_s=parse_duration_s(timeout) if timeout is not None else None,
        tags=_tags(tags or ()),
        name=name,
        command_line=("amlctl", *sys.argv[1:]),
        cwd=call.cwd,
        caller_variables=os.environ,
    )
    app_ = call.app

    def find_run(reference: str) -> RunAt:
        holder, rest = app_.holding(reference)
        return RunAt(resolve_run(holder.workspace, rest), holder)

    if is_dry_run:
        plan = plan_operation(request, app_, find_run=find_run)
        call.result(plan.to_json(), lambda style, width: runs.plan_lines(plan))
        return 0
    result = submit_operation(
        request,
        app_,
        is_detached=is_detached,
        fetch_outputs=app_.settings.submit.fetch if is_fetching is None else is_fetching,
        find_run=find_run,
        on_interrupt=on_interrupt(app_.settings.submit.on_interrupt, call.output, call.pause),
    )
    return _tell(call, result, is_detached=is_detached)


def _tell(call: Invocation, result: SubmitResult, *, is_detached: bool) -> int:
    """The document however the run ended; in text the reason of a failure comes last, where it is seen."""
    call.result(result.to_json(), lambda style, width: runs.submit_lines(result, style))
    failure = result.failure
    if failure is None:
        return 0 if result.record.is_final or is_detached else LEFT_RUNNING
    if not call.is_json:
        call.output.error(failure)
    return failure.exit_code


def _first(*values: str | None) -> str | None:
    """The first that was typed, be it empty: that is an error of its own."""
    return next((value for value in values if value is not None), None)


def _said_yes(word: str | None) -> bool:
    if word is None or word.lower() in ("true", "yes", "1"):
        return True
    if word.lower() in ("false", "no", "0"):
        return False
    raise UsageError(f"--should-upload-datasets {word!r}: True or False", hint="today: --sync or --no-sync")


def _variables(pairs: Sequence[str]) -> dict[str, str | None]:
    values: dict[str, str | None] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if name in values:
            raise UsageError(f"--env {name} was given twice", hint="give it once")
        values[name] = value if equals else None
    return values


def _tags(pairs: Sequence[str]) -> dict[str, str]:
    tags = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise UsageError(f"--tag {pair!r} is not a pair", hint="--tag NAME=VALUE")
        if name in tags:
            raise UsageError(f"--tag {name} was given twice", hint="give it once")
        tags[name] = value
    return tags
