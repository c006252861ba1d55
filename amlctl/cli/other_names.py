"""Names of commands that people type first, from other tools, and the commands of amlctl that do that."""

from __future__ import annotations

from amlctl.core.message import Command, Message, did_you_mean
from amlctl.errors import UsageError

_RUNS = Message("to list runs: ", Command("runs"))
_SUBMIT = Message("to run a script: ", Command("submit", "SCRIPT"))
_UPLOAD = Message("to upload a dataset: ", Command("sync", "PATH"))
_DOWNLOAD = Message("a run's outputs: ", Command("fetch"), "; a dataset: ", Command("sync", "--pull", "PATH"))
_DELETE = Message("a run: ", Command("runs", "delete", "RUN"), "; a dataset: ", Command("dataset", "remove", "NAME"))
_CANCEL = Message("to end a run: ", Command("cancel", "RUN"))
_SHOW = Message("a run: ", Command("runs", "show"), "; a path: ", Command("why", "PATH"))
_LOGS = Message("to follow the newest run: ", Command("logs", "-f"))
_LOGIN = Message("amlctl uses the login of the Azure CLI: az login. Check it with: ", Command("doctor"))
_STORE = Message("room on this machine: ", Command("clean"), "; in the store: ", Command("store", "gc"))
_COMPUTE = Message("compute targets: ", Command("compute", "list"))
_OPEN = Message("to open a run's page or folder: ", Command("runs", "open", "RUN"))
_DATASETS = Message("datasets of the store: ", Command("dataset", "list"))
_INIT = Message("to set up a project: ", Command("init"))

MEANT = {
    **dict.fromkeys(("ls", "list", "ps", "jobs", "job", "history", "experiments"), _RUNS),
    **dict.fromkeys(("run", "exec", "start", "train", "launch", "repro"), _SUBMIT),
    **dict.fromkeys(("push", "upload", "add", "cp", "copy"), _UPLOAD),
    **dict.fromkeys(("pull", "download", "get", "checkout"), _DOWNLOAD),
    **dict.fromkeys(("delete", "rm", "remove"), _DELETE),
    **dict.fromkeys(("stop", "kill", "down"), _CANCEL),
    **dict.fromkeys(("show", "info", "describe", "inspect"), _SHOW),
    **dict.fromkeys(("log", "tail", "stream", "attach", "watch"), _LOGS),
    **dict.fromkeys(("login", "logout", "auth", "whoami", "account"), _LOGIN),
    **dict.fromkeys(("cache", "prune", "gc", "du"), _STORE),
    **dict.fromkeys(("cluster", "clusters", "gpu", "gpus", "up"), _COMPUTE),
    **dict.fromkeys(("open", "ui", "web", "studio", "dashboard"), _OPEN),
    **dict.fromkeys(("datasets", "data"), _DATASETS),
    **dict.fromkeys(("create", "new", "setup"), _INIT),
    "diff": Message("a dataset: ", Command("status"), "; runs: ", Command("runs", "compare", "@2", "@last")),
    "compare": Message("to compare runs: ", Command("runs", "compare", "@2", "@last")),
    "check": Message("to check the setup: ", Command("doctor")),
    "verify": Message("to verify the store: ", Command("store", "verify")),
    "environment": Message("the environment of a submit: ", Command("env", "show")),
    "version": Command("--version"),
}
"""For each such name a hint with the command to type."""


def unknown_command(name: str, known: list[str]) -> UsageError:
    """The error for a command that does not exist."""
    near = did_you_mean(name, known)
    hint = MEANT.get(name.lower()) or Message(f"{near} See all: " if near else "see all: ", Command("--help"))
    return UsageError(f"No such command {name!r}", hint=hint)
