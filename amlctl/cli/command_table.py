"""Every command in one table: name, module, one line of help, panel of the root help."""

from __future__ import annotations

from amlctl.cli.lazy import LazyCommand

_PROJECT = "Project"
_DATA = "Data"
_RUNS = "Runs"
_PLACES = "Environments, compute, store"

_TABLE = (
    ("init", "init", "Make this folder a project.", _PROJECT),
    ("doctor", "doctor", "Check tools, rights, store and folders; say what mends them.", _PROJECT),
    ("submit", "submit", "Run a script: sync, start, stream the log, fetch the outputs.", _RUNS),
    ("runs", "runs", "List, show, compare, cancel, open and delete runs.", _RUNS),
    ("logs", "logs", "Show a run's log, live or afterwards.", _RUNS),
    ("fetch", "fetch", "Bring a run's outputs into outputs/RUN.", _RUNS),
    ("cancel", "cancel", "End a run and keep its outputs so far.", _RUNS),
    ("sync", "sync", "Make the store hold exactly what a dataset holds now, or the other way.", _DATA),
    ("status", "status", "Show what a sync would do.", _DATA),
    ("why", "why", "Explain a path: ignored or not, by which rule; where its bytes are.", _DATA),
    ("env", "env", "Show or make the environment that a submit would use.", _PLACES),
    ("compute", "compute", "List, show, create, start, stop and delete compute targets.", _PLACES),
    ("store", "store", "Show what the store holds, clean it up, check it.", _PLACES),
)

COMMANDS = {
    name: LazyCommand(name, f"amlctl.cli.commands.{module}", short_help, panel)
    for name, module, short_help, panel in _TABLE
}
