"""Every call to Azure that a command makes is answered wrongly, in each way of `tests/support/wire_faults.py`.

    python -m tests.faults.every_azure_reply                    all points of all commands, hours
    python -m tests.faults.every_azure_reply --sample 5 --seed 3
    python -m tests.faults.every_azure_reply --only submit --call "ml PUT jobs/*" --fault lost --times once

A command then ends with an exit code that fits, in words, without a secret; no end of a run is invented, no run is
started twice, and the same command goes through once Azure answers again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from urllib.parse import parse_qs, urlsplit

from tests.faults.points import parser, tried
from tests.support.azureml_service import AzureMLService
from tests.support.azureml_service.settings import settings_text
from tests.support.azurite import Azurite, running_azurite
from tests.support.fault_proxy import FaultProxy, Seen, fault_proxy
from tests.support.warm_command import SDKS, WarmCommand, warm_command
from tests.support.wire_faults import FAULTS, SECRETS, Fault

LIMIT_S = 30
"""Of a command with a fault; without one it may take longer on a busy machine."""
FITTING = {
    "401": {0, 3},
    "403": {0, 3},
    "404": {0, 3, 4, 5, 6},
    "404-page": {0, 3, 4, 6},
    "409": {0, 5, 6},
    "412": {0, 2, 5, 6},
    "400": {0, 2, 3},
    "403-page": {0, 3, 6},
    "407-page": {0, 2, 3, 6},
}
"""Of the others: done nevertheless, or the network and the service."""
DAMAGE = (
    "404",
    *("truncated", "null", "list", "nothing-inside", "inner-nulls", "inner-lists", "inner-texts", "leaf-nulls"),
    "leaves-swapped",
)
"""Of a value of the store: it is missing, or its check fails."""
ONCE = ("429", "500", "502-page", "503", "lost", "reset", "garbled", "cut", "twice")
"""Repeating the request helps: also at the first of its calls alone, and then the command goes through."""
_SCRIPT = """\
# /// script
# [tool.amlctl]
# datasets = ["raw"]
# ///
import os
from file_paths import outputs_dir
print("a line of the script")
open(os.path.join(outputs_dir(), "model"), "w").write("x")
"""
_ID = re.compile(r"[^/]*\d[^/]*")
_BASE = re.compile(r"^.*/workspaces/[^/]+/?", re.IGNORECASE)


@dataclass
class Bench:
    """A project in `folder`, and what answers it. `fault` is what happens to calls like `call`, `times` at most."""

    folder: Path
    service: AzureMLService
    proxy: FaultProxy
    login: FaultProxy
    warm: WarmCommand
    call: str = ""
    fault: Fault | None = None
    times: int = 0
    seen: list[str] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self.service.faults.wire = lambda method, target: self._next(f"ml {method} {_of_workspace(target)}")
        self.proxy.act = lambda seen: self._next(f"blob {seen.verb} {_of_blob(seen)}")
        self.login.act = lambda seen: self._next(f"login {seen.verb} token")

    def run(self, *arguments: str) -> Ended:
        """Raises subprocess.TimeoutExpired."""
        self.seen.clear()
        limit_s = LIMIT_S if self.fault is not None else 10 * LIMIT_S
        done = self.warm(arguments, self.folder, self._variables(), limit_s)
        return Ended(done.returncode, (done.stdout + done.stderr).decode(), [*self.seen])

    def must(self, *arguments: str) -> Ended:
        ended = self.run(*arguments)
        assert ended.code == 0, (arguments, ended.reported)
        return ended

    def submitted(self, *, is_over: bool) -> str:
        """A run that this machine has not looked at since."""
        self.service.faults.holds_queue = not is_over
        out = self.must("submit", "one.py", "--detach", "--json").reported
        run = str(json.loads(out[out.index("{") : out.rindex("}") + 1])["run"])
        if is_over:
            self.service.job(run).wait()
        return run

    def _next(self, call: str) -> Fault | None:
        with self.lock:
            self.seen.append(call)
            if self.fault is None or call != self.call or self.times <= 0:
                return None
            self.times -= 1
            return self.fault

    def _variables(self) -> Mapping[str, str]:
        """Logged in, without a key to the storage."""
        given = {name: value for name, value in self.service.stock_variables.items() if "STORAGE" not in name}
        login = {"IDENTITY_ENDPOINT": f"{self.login.url}/token", "XDG_CACHE_HOME": str(self.folder / "cache")}
        return {**os.environ, **given, **login, "COLUMNS": "100"}


@dataclass(frozen=True)
class Ended:
    code: int
    reported: str
    calls: Sequence[str]


def _of_workspace(target: str) -> str:
    parts = urlsplit(target)
    return "/".join("*" if _ID.fullmatch(part) else part for part in _BASE.sub("", parts.path).split("/")) or "."


def _of_blob(seen: Seen) -> str:
    parts = urlsplit(seen.path)
    kind = "&".join(
        f"{name}={parse_qs(parts.query)[name][0]}" for name in ("restype", "comp") if f"{name}=" in parts.query
    )
    names = ["*" if _ID.fullmatch(part) else part for part in parts.path.split("/")[3:]]
    return "/".join(names) + (f"?{kind}" if kind else "")


def _changed(bench: Bench) -> str:
    bench.must("sync", "raw", "--pull", "--theirs")  # earlier points have changed the store
    (bench.folder / "data_blobs/raw/a").write_bytes(os.urandom(100))
    return ""


def _behind(bench: Bench) -> str:
    _changed(bench)
    bench.must("sync", "raw")
    (bench.folder / "data_blobs/raw/a").write_text("hello")
    for database in (bench.folder / ".amlctl").glob("*.sqlite*"):
        database.unlink()
    return ""


def _forgotten(bench: Bench) -> str:
    """As on a new machine: nothing is known of the workspace."""
    _changed(bench)
    shutil.rmtree(bench.folder / ".amlctl/cache")
    return ""


def _ended(bench: Bench) -> str:
    return bench.submitted(is_over=True)


def _queued(bench: Bench) -> str:
    return bench.submitted(is_over=False)


def _cluster(bench: Bench) -> str:
    bench.must("compute", "create", "c1")
    return "c1"


def _no_cluster(bench: Bench) -> str:
    bench.run("compute", "delete", "c1", "--yes")
    return "c1"


def _nothing(bench: Bench) -> str:
    return ""


Prepare = Callable[[Bench], str]
COMMANDS: Mapping[str, tuple[Prepare, Sequence[str]]] = {
    "sync": (_changed, ["sync", "raw"]),
    "first sync": (_forgotten, ["sync", "raw"]),
    "pull": (_behind, ["sync", "--pull", "raw", "--theirs"]),
    "status": (_nothing, ["status"]),
    "submit": (_changed, ["submit", "one.py", "--detach"]),
    "follow": (_nothing, ["submit", "one.py"]),
    "logs": (_ended, ["logs", "-f", "{}"]),
    "fetch": (_ended, ["fetch", "{}"]),
    "show": (_ended, ["runs", "show", "{}"]),
    "queued": (_queued, ["runs", "show", "{}"]),
    "runs": (_ended, ["runs"]),
    "cancel": (_queued, ["cancel", "{}"]),
    "delete": (_ended, ["runs", "delete", "{}", "--yes"]),
    "compute list": (_cluster, ["compute", "list"]),
    "compute show": (_cluster, ["compute", "show", "c1"]),
    "compute create": (_no_cluster, ["compute", "create", "c1"]),
    "compute stop": (_cluster, ["compute", "stop", "c1"]),
    "compute start": (_cluster, ["compute", "start", "c1"]),
    "compute delete": (_cluster, ["compute", "delete", "c1", "--yes"]),
    "doctor": (_cluster, ["doctor"]),
    "dataset list": (_nothing, ["dataset", "list"]),
    "share": (_ended, ["runs", "share", "{}"]),
}


@dataclass(frozen=True)
class Point:
    command: str
    call: str
    fault: str
    is_once: bool

    def __str__(self) -> str:
        times = "once" if self.is_once else "always"
        return f"--only {self.command!r} --call {self.call!r} --fault {self.fault} --times {times}"


class Sweep:
    """`home` is the project as every point begins with it."""

    def __init__(self, bench: Bench, home: Path) -> None:
        self.bench = bench
        self._home = home
        self.codes = Counter[tuple[str, int]]()

    def points(self, only: str | None) -> Iterator[Point]:
        for command in COMMANDS:
            if only in (None, command):
                arguments = self._prepared(command)
                calls = dict.fromkeys(self.bench.must(*arguments).calls)
                for call in calls:
                    for fault in FAULTS:
                        yield Point(command, call, fault, is_once=False)
                        if fault in ONCE:
                            yield Point(command, call, fault, is_once=True)

    def _prepared(self, command: str) -> list[str]:
        bench = self.bench
        bench.fault = None
        for job in bench.service.jobs.all():  # what the point before has started: thousands would pile up
            job.ask_to_cancel()
            job.is_over.wait(LIMIT_S)
        shutil.rmtree(bench.folder)
        shutil.copytree(self._home, bench.folder, symlinks=True)
        prepare, arguments = COMMANDS[command]
        value = prepare(bench)
        shutil.rmtree(bench.folder / "cache", ignore_errors=True)  # its tokens: each point begins with a login
        return [one.format(value) for one in arguments]

    def failure(self, point: Point) -> str:
        """What is wrong with how the command ended; empty if nothing."""
        bench, service = self.bench, self.bench.service
        arguments = self._prepared(point.command)
        before = {job.name for job in service.jobs.all()}
        bench.call, bench.fault, bench.times = point.call, FAULTS[point.fault], 1 if point.is_once else 1 << 30
        try:
            ended = bench.run(*arguments)
        except subprocess.TimeoutExpired as error:
            if b"; trying again" in (error.stderr or b""):  # a run is followed until the service is back
                return ""
            if "OperationsStatus/" in point.call and point.fault == "inner-texts":
                return ""  # any word but those of an end means that an operation is under way
            return f"did not end: {error.stdout!r} {error.stderr!r}"
        finally:
            bench.fault = None
        self.codes[point.fault, ended.code] += 1
        wrong = list(self._wrong(point, ended, before))
        if not wrong:
            again = bench.run(*arguments)
            if again.code != 0 and point.command not in ("delete", "compute delete"):
                wrong.append(f"afterwards exit code {again.code}: {again.reported}")
        service.faults.holds_queue = False
        return "\n".join([*wrong, ended.reported]) if wrong else ""

    def _wrong(self, point: Point, ended: Ended, before: set[str]) -> Iterator[str]:
        text = ended.reported
        fitting = {0} if point.is_once else FITTING.get(point.fault, {0, 6})
        if "listSecrets" in point.call or point.call.startswith("login"):
            fitting = {*fitting, 3}
        if point.fault == "400" and point.call.startswith("blob"):
            fitting = {0, 6}
        if point.command == "doctor" or (point.call.startswith("blob GET") and point.fault in DAMAGE):
            fitting = {*fitting, 1}
        if ended.code not in fitting:
            yield f"exit code {ended.code}"
        if "Traceback" in text or "itself failed" in text:
            yield "a traceback"
        if ended.code and point.command != "doctor":
            if "error: " not in text:
                yield "no error"
            elif "hint: " not in text:
                yield "no hint"
        if "<html" in text or "<?xml" in text or any(len(line) > 600 for line in text.splitlines()):
            yield "a page as a message"
        yield from self._secrets(text)
        made = [job for job in self.bench.service.jobs.all() if job.name not in before]
        if len(made) > (point.command in ("submit", "follow")):
            yield f"{len(made)} runs"
        yield from self._invented(text)

    def _secrets(self, text: str) -> Iterator[str]:
        secrets = (*SECRETS, self.bench.service.storage.azurite.key, "eyJ")
        for secret in secrets:
            if secret in text:
                yield f"{secret} on the screen"
            for path in (self.bench.folder / ".amlctl").rglob("*"):
                if path.is_file() and secret.encode() in path.read_bytes():
                    yield f"{secret} in {path.relative_to(self.bench.folder)}"

    def _invented(self, text: str) -> Iterator[str]:
        """Ends in a record or on the screen that no job has."""
        jobs = {job.name: job for job in self.bench.service.jobs.all()}
        for path in (self.bench.folder / ".amlctl/runs").glob("*/record.json"):
            status, job = json.loads(path.read_bytes())["status"], jobs.get(path.parent.name)
            if job is not None and status in ("Completed", "Failed", "Canceled") and status != job.status:
                yield f"the record says {status}, the job is {job.status}"
        for status in ("Completed", "Canceled"):
            if re.search(rf"\b{status}\b", text) and status not in {job.status for job in jobs.values()}:
                yield f"{status} on the screen"


def opened(stack: ExitStack, folder: Path, azurite: Azurite, warm: WarmCommand) -> Sweep:
    """A project in `folder`, with services and a state to begin with."""
    proxy = stack.enter_context(fault_proxy(azurite.url))
    service = stack.enter_context(AzureMLService(folder / "azureml", azurite, azurite_outside=Azurite(proxy.url)))
    login = stack.enter_context(fault_proxy(service.login_variables["IDENTITY_ENDPOINT"].removesuffix("/token")))
    work = folder / "project"
    work.mkdir()
    bench = Bench(work, service, proxy, login, warm)
    bench.must("init")
    (work / ".amlctl.toml").write_text(settings_text(service, experiment="replies"))
    (work / "pipeline/one.py").write_text(_SCRIPT)
    (work / "compute/c1.yml").write_text("name: c1\ntype: amlcompute\nsize: Standard_DS3_v2\n")
    (work / "data_blobs/raw").mkdir(exist_ok=True)
    (work / "data_blobs/raw/a").write_text("hello")
    (work / "data_blobs/raw/b").write_bytes(os.urandom(100_000))
    bench.must("sync", "raw")
    shutil.copytree(work, folder / "home", symlinks=True)
    return Sweep(bench, folder / "home")


def main(arguments: list[str]) -> int:
    made = parser(COMMANDS)
    made.add_argument("--call", default="", help="calls that begin with it")
    made.add_argument("--fault", choices=FAULTS)
    made.add_argument("--times", choices=("once", "always"))
    made.add_argument("--list", action="store_true", help="the calls of each command")
    options = made.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        warm = stack.enter_context(warm_command(*SDKS, "tests.support.short_waits"))
        sweep = opened(stack, Path(folder), stack.enter_context(running_azurite()), warm)
        chosen = [
            point
            for point in sweep.points(options.only)
            if point.call.startswith(options.call)
            and options.fault in (None, point.fault)
            and options.times in (None, "once" if point.is_once else "always")
        ]
        if options.list:
            sys.stdout.writelines(f"{one}\n" for one in dict.fromkeys(f"{p.command}: {p.call}" for p in chosen))
            return 0
        return tried(chosen, options, sweep.failure, sweep.codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
