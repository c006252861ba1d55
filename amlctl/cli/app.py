"""`amlctl`: the entry point. Parses, runs one command, turns its end into an exit code."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.main

from amlctl import __version__
from amlctl.cli import signals
from amlctl.cli.arguments import GlobalOptions, before_script, check_not_empty, hoist, with_submit
from amlctl.cli.command_group import RootGroup, plain, require_command
from amlctl.cli.invocation import Invocation
from amlctl.cli.output import Output, flush_streams, open_missing_streams, silence_stdout
from amlctl.core.message import Command
from amlctl.errors import AmlctlError, Interrupted, UsageError

_BROKEN_PIPE = 141
"""128 + SIGPIPE: what a shell shows for a program whose reader went away."""

_EPILOG = """\
Exit codes: 0 done · 1 run or check failed · 2 wrong usage · 3 settings, login or permissions · 4 not found · \
5 conflict · 6 network or service · 70 internal error · 130 interrupted (129 SIGHUP, 143 SIGTERM)

Get started:

  amlctl init           # set up the project
  amlctl submit SCRIPT  # run a script of pipeline/
"""


_OUT = "Output"


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from amlctl.cli.render.json import document_bytes  # no other command needs JSON to start

        is_json = "--json" in before_script(sys.argv)  # it may follow, and is not parsed yet then
        typer.echo(document_bytes({"version": __version__}) if is_json else f"amlctl {__version__}", nl=not is_json)
        raise typer.Exit


def root(
    ctx: typer.Context,
    workspace: Annotated[
        str | None, typer.Option(metavar="NAME", help="Use this workspace of the settings instead of the default")
    ] = None,
    project: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Use the project of this folder instead of the current one")
    ] = None,
    is_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document to stdout", rich_help_panel=_OUT)
    ] = False,
    is_quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print results and warnings only", rich_help_panel=_OUT)
    ] = False,
    is_verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Verbose output, with tracebacks", rich_help_panel=_OUT)
    ] = False,
    no_color: Annotated[
        bool, typer.Option("--no-color", help="Disable colors, as NO_COLOR does", rich_help_panel=_OUT)
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Show the version and exit")
    ] = False,
) -> None:
    """Run one project folder on your laptop and on Azure ML.

    The options below may also follow the command.
    """
    ctx.obj = Invocation(GlobalOptions(workspace, project, is_json, is_quiet, is_verbose, no_color))
    require_command(ctx)


def root_command() -> Any:
    app = typer.Typer(cls=RootGroup, invoke_without_command=True, epilog=_EPILOG)
    app.callback()(root)
    command: Any = typer.main.get_command(app)
    for param, verb in zip(command.params[-2:], ("Install", "Show"), strict=True):  # which Typer has added
        plain(param).help = f"{verb} completion for the current shell"
    return command


def main() -> None:
    if sys.getfilesystemencoding() != "utf-8":
        _restart_in_utf8()
    # A sync makes millions of small objects without cycles: collecting garbage among them took a sixth of its time.
    gc.set_threshold(100_000, 20, 20)
    signals.take_over()
    open_missing_streams()
    code = run(sys.argv[1:])
    flush_streams()
    gc.freeze()  # saves the interpreter 15 ms of garbage collection at its end
    sys.exit(code)


def _restart_in_utf8() -> None:
    """A store has file names as UTF-8, whatever the locale of this machine."""
    variables = {**os.environ, "PYTHONUTF8": "1"}
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], variables)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. Errors are reported, never raised."""
    command = root_command()
    if "_AMLCTL_COMPLETE" in os.environ:
        from amlctl.cli.completion import offer_values

        offer_values(command)
        try:
            command.main(prog_name="amlctl")
        except SystemExit as exit_:  # `main` ends the interpreter faster
            return int(exit_.code or 0)
    if "--no-color" in before_script(arguments):
        os.environ["NO_COLOR"] = "1"  # also for the help pages, which Typer draws
    try:
        check_not_empty(arguments)
        hoisted, rest = hoist(arguments)
    except UsageError as error:
        return _report(error, None, arguments)
    context: Any = None
    try:
        with command.make_context("amlctl", [*hoisted, *with_submit(rest)]) as context:
            code = command.invoke(context)
        sys.stdout.flush()
        return _with_signal(int(code or 0))
    except typer.Exit as exit_:
        return exit_.exit_code
    except BrokenPipeError:
        silence_stdout()
        return _BROKEN_PIPE
    except SystemExit as exit_:  # rich does so when the reader of a help page went away
        silence_stdout()
        return _BROKEN_PIPE if exit_.code else 0
    except BaseException as error:  # noqa: BLE001  the one place that turns errors into exit codes
        return _report(error, context.obj if context is not None else None, arguments)


def _with_signal(code: int) -> int:
    """The exit code, or that of the signal that ended the command early, if there is nothing worse to report."""
    signalled = signals.received()
    return signals.exit_code(signalled) if signalled is not None and code in (0, Interrupted.exit_code) else code


def _report(error: BaseException, invocation: Invocation | None, arguments: Sequence[str]) -> int:
    """Tell the user, in text or JSON, how the command failed."""
    resume = ""
    if invocation is not None:
        resume = invocation.resume_hint
        invocation.close()
        output = invocation.output
    else:
        is_json = "--json" in before_script(arguments)
        output = Output(GlobalOptions(is_json=is_json), os.environ)
    signals.end_at_once()
    reported = _translated(error, invocation, arguments, is_verbose=output.options.is_verbose)
    if isinstance(reported, Interrupted):
        reported = Interrupted(reported.message, hint=resume)
    output.error(reported)
    return _with_signal(reported.exit_code)


def _translated(
    error: BaseException, invocation: Invocation | None, arguments: Sequence[str], *, is_verbose: bool
) -> AmlctlError:
    signalled = signals.received()
    is_terminal_gone = signalled is signal.SIGHUP and isinstance(error, OSError)
    if isinstance(error, (KeyboardInterrupt, typer.Abort, Interrupted)) or _is_lock_error(error) or is_terminal_gone:
        return Interrupted("interrupted" if signalled is None else f"ended by {signalled.name}")
    if isinstance(error, AmlctlError):
        return error
    if isinstance(error, typer.TyperException):
        ctx = getattr(error, "ctx", None)
        path = ctx.command_path if ctx is not None else "amlctl"
        return UsageError(error.format_message().rstrip("."), hint=Command(*path.split()[1:], "--help"))
    from amlctl.cli import faults

    explained = faults.explained(error) if isinstance(error, Exception) else None
    if is_verbose:
        faults.print_traceback(error)
    return explained or faults.internal_fault(error, arguments, invocation.log_folder if invocation else None)


def _is_lock_error(error: BaseException) -> bool:
    """True for "release unlocked lock": Python raises it if Ctrl-C arrived while a lock was being acquired."""
    return isinstance(error, RuntimeError) and isinstance(error.__context__, KeyboardInterrupt)
