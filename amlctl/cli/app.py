"""`amlctl`: the entry point. Parses, runs one command, turns how it ended into an exit code."""

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
from amlctl.cli.command_table import COMMANDS
from amlctl.cli.empty_arguments import check_not_empty
from amlctl.cli.global_options import GlobalOptions, hoist
from amlctl.cli.invocation import Invocation
from amlctl.cli.lazy import CommandGroup, plain_help, spare_pydantic
from amlctl.cli.output import Output, flush_streams, open_missing_streams, silence_stdout
from amlctl.core.message import Command
from amlctl.errors import AmlctlError, Interrupted, UsageError

# Typer raises Click's exceptions, which some of its versions carry inside and others import.
_ParserError: Any = typer.BadParameter.__mro__[2]

_BROKEN_PIPE = 141
"""128 + SIGPIPE: what a shell shows for a program whose reader went away."""

_EPILOG = """\
Exit codes: 0 done · 1 the run or a check failed · 2 wrong use · 3 settings, login or rights · 4 not found · \
5 conflict · 6 network or service · 70 a fault of amlctl · 130 interrupted (129 SIGHUP, 143 SIGTERM)

Begin with: amlctl init, then amlctl submit SCRIPT
"""


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from amlctl.cli.render.json import document_bytes  # no other command needs JSON to start

        is_json = "--json" in _before_script_arguments(sys.argv)  # it may follow, and is not parsed yet then
        typer.echo(document_bytes({"version": __version__}) if is_json else f"amlctl {__version__}", nl=not is_json)
        raise typer.Exit


def root(
    ctx: typer.Context,
    workspace: Annotated[
        str | None, typer.Option(metavar="NAME", help="The workspace to use: one that the settings name.")
    ] = None,
    project: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder of the project, instead of the present one.")
    ] = None,
    is_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    is_quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no messages.")] = False,
    is_verbose: Annotated[bool, typer.Option("--verbose", "-v", help="More words; tracebacks.")] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colour; so does NO_COLOR.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """One project folder, run on the laptop and on Azure ML.

    The options below may also follow the command.
    """
    ctx.obj = Invocation(GlobalOptions(workspace, project, is_json, is_quiet, is_verbose, no_color))


def root_command() -> Any:
    """The root group; its commands are lines of a table until they are needed."""
    app = typer.Typer(
        cls=CommandGroup,
        invoke_without_command=True,
        epilog=_EPILOG,
    )
    app.callback()(root)
    group: Any = typer.main.get_command(app)
    group.commands.update(COMMANDS)
    spare_pydantic(group)
    plain_help(group)
    return group


def main() -> None:
    if sys.getfilesystemencoding() != "utf-8":
        _start_anew_in_utf8()
    # Millions of small objects without cycles are made here: looking for garbage among them took a sixth of the time.
    gc.set_threshold(100_000, 20, 20)
    signals.take_over()
    open_missing_streams()
    code = run(sys.argv[1:])
    flush_streams()
    gc.freeze()  # else the interpreter looks through all that is left before it ends: 15 ms
    sys.exit(code)


def _start_anew_in_utf8() -> None:
    """File names are bytes, and a store has them as UTF-8 whatever the locale of one machine makes of them."""
    variables = {**os.environ, "PYTHONUTF8": "1"}
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], variables)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. Errors are reported, never raised."""
    command = root_command()
    if "_AMLCTL_COMPLETE" in os.environ:
        command.main(prog_name="amlctl")
    if "--no-color" in arguments:
        os.environ["NO_COLOR"] = "1"  # also for the help pages, which Typer draws
    try:
        check_not_empty(arguments)
        hoisted, rest = hoist(arguments)
    except UsageError as error:
        return _report(error, None, arguments)
    context: Any = None
    try:
        with command.make_context("amlctl", [*hoisted, *rest]) as context:
            code = command.invoke(context)
        sys.stdout.flush()
        return _with_signal(int(code or 0))
    except typer.Exit as exit_:
        return exit_.exit_code
    except BrokenPipeError:
        silence_stdout()
        return _BROKEN_PIPE
    except SystemExit as exit_:  # rich ends so when the reader of a help page went away
        silence_stdout()
        return _BROKEN_PIPE if exit_.code else 0
    except BaseException as error:  # noqa: BLE001  the one place where everything ends
        return _report(error, context.obj if context is not None else None, arguments)


def _with_signal(code: int) -> int:
    """A command that a signal has ended early, and that has nothing worse to report, says so by its exit code."""
    signalled = signals.received()
    return signals.exit_code(signalled) if signalled is not None and code in (0, Interrupted.exit_code) else code


def _report(error: BaseException, invocation: Invocation | None, arguments: Sequence[str]) -> int:
    """Tell the user, in text or JSON, how the command failed."""
    if invocation is not None:
        invocation.close()
        output = invocation.output
    else:
        is_json = "--json" in _before_script_arguments(arguments)
        output = Output(GlobalOptions(is_json=is_json), os.environ)
    signals.end_at_once()
    told = _as_ours(error, invocation, arguments, is_verbose=output.options.is_verbose)
    output.error(told)
    return _with_signal(told.exit_code)


def _as_ours(
    error: BaseException, invocation: Invocation | None, arguments: Sequence[str], *, is_verbose: bool
) -> AmlctlError:
    signalled = signals.received()
    is_terminal_gone = signalled is signal.SIGHUP and isinstance(error, OSError)
    if isinstance(error, (KeyboardInterrupt, typer.Abort, Interrupted)) or _is_of_a_lock(error) or is_terminal_gone:
        return Interrupted("interrupted" if signalled is None else f"ended by {signalled.name}")
    if isinstance(error, AmlctlError):
        return error
    if isinstance(error, _ParserError):
        return _usage_error(error, arguments)
    from amlctl.cli import faults

    told = faults.explained(error) if isinstance(error, Exception) else None
    if is_verbose:
        faults.print_traceback(error)
    return told or faults.internal_fault(error, arguments, invocation.log_folder if invocation else None)


def _is_of_a_lock(error: BaseException) -> bool:
    """What Python's own locks raise after a Ctrl-C that came while one was being taken: "release unlocked lock"."""
    return isinstance(error, RuntimeError) and isinstance(error.__context__, KeyboardInterrupt)


def _usage_error(error: Any, arguments: Sequence[str]) -> UsageError:
    """Typer's own error in our words: what is wrong, and what to type, or whose help tells more."""
    path = error.ctx.command_path if getattr(error, "ctx", None) is not None else "amlctl"
    if path == "amlctl submit":
        from amlctl.cli.misplaced import misplaced_hint

        if hint := misplaced_hint(error, arguments):
            return UsageError(error.message.rstrip("."), hint=hint)
    return UsageError(error.format_message().rstrip("."), hint=Command(*path.split()[1:], "--help"))


def _before_script_arguments(arguments: Sequence[str]) -> Sequence[str]:
    return arguments[: arguments.index("--")] if "--" in arguments else arguments
