"""Azure ML beside its own SDK: submit, status, log and outputs on a loopback service that is 40 ms away.

Each round has a service of its own. Every step is taken by both sides in turn as whole processes, each with its own
project of the same files. Each request to the control plane takes 40 ms longer, and what goes to and from the blobs
travels over a link of that round trip, where it is counted. Neither login nor encryption takes a round trip of its own.
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from azureml_sides import OUTPUTS, AmlctlSide, SdkSide, Side
from data import TreeShape, write_tree
from link import Link, running_link
from machine import machine
from measure import Command, CommandFailed, run_once
from sandbox import Sandbox, working_folder

sys.path.append(str(Path(__file__).parents[2]))
from tests.support.azureml_service import AzureMLService
from tests.support.azurite import running_azurite

_ROUND_TRIP_S = 0.04
_LONGEST_S = 600.0
_FIRST, _UNCHANGED, _CHANGED = "submit, first", "submit, nothing changed", "submit, one code file changed"
_STATUS, _FETCH, _LOG = "status", "fetch", "log"


@dataclass(frozen=True)
class Size:
    """What the work consists of."""

    code_files: int = 2_000
    outputs: int = 500
    lines: int = 20


@dataclass
class Cell:
    """One side at one step: a sample a time. `delays_s` are those of the lines of a log."""

    seconds: list[float] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    blob_requests: list[int] = field(default_factory=list)
    sent_bytes: list[int] = field(default_factory=list)
    received_bytes: list[int] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)
    lines_missing: int = 0
    trouble: str = ""


Cells = dict[tuple[str, str], Cell]
"""By step and side."""


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    size = Size(50, 20, 5) if options.quick else Size()
    cells: Cells = {}
    with working_folder("azureml", options.work) as folder:
        about = machine(folder)
        for number in range(1 if options.quick else options.repetitions):
            place = folder / f"round-{number}"
            place.mkdir()
            try:
                with _running_round(Sandbox(place, 1, 1.0, _tell), size, number, cells) as one:
                    one.run(options.only)
            except CommandFailed as error:
                _tell(str(error))
                return 1
            shutil.rmtree(place)
    text = markdown(cells, size, about)
    print(text)
    if options.out:
        options.out.write_text(text)
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py azureml", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fraction of the work, once: does it run at all?")
    parser.add_argument("--only", choices=["submit", _LOG, _FETCH], help="default: all; status comes with submit")
    parser.add_argument("--repetitions", type=int, default=3, metavar="N", help="rounds; default: 3")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where the data is made; default: temporary")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the tables as Markdown, too")
    return parser.parse_args(arguments)


@contextmanager
def _running_round(sandbox: Sandbox, size: Size, number: int, cells: Cells) -> Iterator[_Round]:
    with running_azurite() as azurite, running_link("127.0.0.1", urlsplit(azurite.url).port or 0) as link:
        outside = replace(azurite, url=azurite.url.replace(f":{urlsplit(azurite.url).port}/", f":{link.port}/"))
        with AzureMLService(sandbox.folder / "service", azurite, azurite_outside=outside) as service:
            yield _Round(sandbox, service, link, size, number, cells)


class _Round:
    def __init__(
        self, sandbox: Sandbox, service: AzureMLService, link: Link, size: Size, number: int, cells: Cells
    ) -> None:
        self._sandbox = sandbox
        self._service = service
        self._link = link
        self._size = size
        self._number = number
        self._cells = cells
        # Neither side gets the key of the storage: both ask the workspace for their way in.
        kept = {name: value for name, value in service.stock_variables.items() if "STORAGE" not in name}
        self._variables = {
            **kept,
            "SUBSCRIPTION_ID": service.subscription_id,
            "RESOURCE_GROUP": service.resource_group,
            "WORKSPACE_NAME": service.workspace_name,
            "ENDPOINT": service.endpoint,
        }

    def run(self, only: str | None) -> None:
        if only in (None, "submit"):
            self._submit_and_status()
        if only in (None, _LOG):
            self._follow()
        if only in (None, _FETCH):
            self._fetch()

    def _submit_and_status(self) -> None:
        sides = self._sides("submit")
        for side in sides:
            (side.project / "pipeline/train.py").write_text("print('trained')\n")
            shape = TreeShape(self._size.code_files, 40, 1_000, 9_000, seed=self._number)
            write_tree(side.project / "pipeline/library", shape)
        with self._queue_held():
            run = {}
            for step in (_FIRST, _UNCHANGED, _CHANGED):
                if step == _CHANGED:
                    for side in sides:
                        (side.project / "pipeline/train.py").write_text("print('trained better')\n")
                    time.sleep(2.1)  # past the moment in which a file that has just changed is read twice
                for side in sides:
                    run[side.name] = self._submit(side, "train.py", step)
            for _ in range(3):
                for side in sides:
                    self._measured(_STATUS, side, side.status(run[side.name]))
            for job in self._service.jobs.all():
                job.ask_to_cancel()
                job.wait()

    def _follow(self) -> None:
        """The lines come at uneven times, so that no client's polls fall in step with them."""
        generator = random.Random(self._number)
        pauses = [round(generator.uniform(0.3, 1.7), 2) for _ in range(self._size.lines)]
        script = (
            "import time\n"
            f"for number, pause in enumerate({pauses}):\n"
            "    time.sleep(pause)\n"
            "    print('written', number, time.time(), flush=True)\n"
        )
        for side in self._sides("log"):
            (side.project / "pipeline/talk.py").write_text(script)
            with self._queue_held():
                run = self._submit(side, "talk.py")
                self._tell(f"{side.name}: follows the log")
                with self._far_away(), _following(side.follow(run)) as shown:
                    self._wait_for_reader(run)
                    self._service.faults.holds_queue = False
                    shown.wait()
            delays = [at_s - float(line.split()[2]) for at_s, line in shown.lines if line.startswith("written ")]
            cell = self._cell(_LOG, side)
            cell.delays_s += delays
            cell.lines_missing += self._size.lines - len(delays)
            cell.trouble = shown.trouble or cell.trouble

    def _wait_for_reader(self, run: str) -> None:
        """Until somebody asks how the run is: it begins while it is being watched, as after a submit."""
        before = len(self._service.calls_like(f"GET .*/{run}"))
        until = time.monotonic() + _LONGEST_S
        while len(self._service.calls_like(f"GET .*/{run}")) == before and time.monotonic() < until:
            time.sleep(0.01)

    def _fetch(self) -> None:
        script = (
            "import os, random\n"
            f"folder = {OUTPUTS}\n"
            "os.makedirs(folder, exist_ok=True)\n"
            f"for number in range({self._size.outputs}):\n"
            "    data = random.Random(number).randbytes(20_000)\n"
            "    open(os.path.join(folder, f'picture-{number:04}.png'), 'wb').write(data)\n"
        )
        for side in self._sides("fetch"):
            (side.project / "pipeline/draw.py").write_text(script)
            run = self._submit(side, "draw.py")
            if (ended := self._service.job(run).wait(_LONGEST_S)) != "Completed":
                raise CommandFailed(f"the job that makes the outputs is {ended}: {self._service.job(run).error}")
            target = self._sandbox.folder / f"{side.name}-fetched"
            self._measured(_FETCH, side, side.fetch(run, target))
            got = {path.name: path.read_bytes() for path in target.rglob("picture-*.png")}
            wanted = {f"picture-{n:04}.png": random.Random(n).randbytes(20_000) for n in range(self._size.outputs)}
            if got != wanted:
                raise CommandFailed(f"{side.name}: brought {len(got)} files, not the {len(wanted)} that were made")

    def _sides(self, work: str) -> list[Side]:
        """Fresh projects on a datastore of their own: what other steps have left there is not on the nodes."""
        self._service.datastores.add(work, work)
        self._service.storage.default_datastore = work
        return [
            kind(self._sandbox, self._sandbox.folder / f"{kind.name}-{work}", self._variables)
            for kind in (AmlctlSide, SdkSide)
        ]

    def _submit(self, side: Side, script: str, step: str = "") -> str:
        """The run's name. Measured where there is a step."""
        before = {job.name for job in self._service.jobs.all()}
        submit = side.submit(script, f"{script.removesuffix('.py')}{len(before)}")
        if step:
            self._measured(step, side, submit)
        else:
            run_once(submit)
        [made] = [job.name for job in self._service.jobs.all() if job.name not in before]
        return made

    def _measured(self, step: str, side: Side, command: Command) -> None:
        self._tell(f"{side.name}: {step}")
        calls = len(self._service.calls)
        with self._far_away():
            seconds, _ = run_once(command)
        counts = self._link.counts()
        cell = self._cell(step, side)
        cell.seconds.append(seconds)
        cell.calls.append(len(self._service.calls) - calls)
        cell.blob_requests.append(counts.requests)
        cell.sent_bytes.append(counts.sent_bytes)
        cell.received_bytes.append(counts.received_bytes)

    @contextmanager
    def _far_away(self) -> Iterator[None]:
        self._link.shape(_ROUND_TRIP_S)
        self._link.reset()
        self._service.faults.latency_s = _ROUND_TRIP_S
        try:
            yield
        finally:
            self._service.faults.latency_s = 0.0
            self._link.shape(0.0)

    @contextmanager
    def _queue_held(self) -> Iterator[None]:
        """No job runs meanwhile; those that were submitted for `submit` never do."""
        self._service.faults.holds_queue = True
        try:
            yield
        finally:
            self._service.faults.holds_queue = False

    def _cell(self, step: str, side: Side) -> Cell:
        return self._cells.setdefault((step, side.name), Cell())

    def _tell(self, text: str) -> None:
        _tell(f"round {self._number + 1}: {text}")


class _Follower:
    """What a process has shown, line by line with the time (seconds since 1970); `trouble` is how it failed."""

    def __init__(self, command: Command) -> None:
        self.lines: list[tuple[float, str]] = []
        self.trouble = ""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self.process = subprocess.Popen(
            command.argv,
            cwd=command.cwd,
            env=command.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait(self) -> None:
        killer = threading.Timer(_LONGEST_S, self.process.kill)
        killer.start()
        self._reader.join()
        if self.process.wait():
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip().splitlines()
            self.trouble = said[-1] if said else f"exit code {self.process.returncode}"
        killer.cancel()

    def close(self) -> None:
        self.process.kill()
        self._reader.join()
        self.process.wait()
        self._errors.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as shown:
            for line in shown:
                self.lines.append((time.time(), line))


@contextmanager
def _following(command: Command) -> Iterator[_Follower]:
    follower = _Follower(command)
    try:
        yield follower
    finally:
        follower.close()


@dataclass(frozen=True)
class Goal:
    text: str
    measured: float | None
    wanted: float
    is_at_most: bool = False

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not measured"
        is_met = self.measured <= self.wanted if self.is_at_most else self.measured >= self.wanted
        return "met" if is_met else "**MISSED**"


def goals(cells: Cells) -> list[Goal]:
    def ratio(step: str, of: Callable[[Cell], Sequence[float]]) -> float | None:
        ours, theirs = (cells.get((step, side.name)) for side in (AmlctlSide, SdkSide))
        return statistics.median(of(theirs)) / statistics.median(of(ours)) if ours and theirs else None

    def seconds(cell: Cell) -> Sequence[float]:
        return cell.seconds

    log = cells.get((_LOG, AmlctlSide.name))
    delays_s = [] if log is None else [*log.delays_s, *[float("inf")] * log.lines_missing]
    return [
        Goal("unchanged submit, times as fast: ≥ 3", ratio(_UNCHANGED, seconds), 3),
        Goal("one code file changed, times fewer bytes: ≥ 10", ratio(_CHANGED, lambda cell: cell.sent_bytes), 10),
        Goal("status, times as fast: ≥ 5", ratio(_STATUS, seconds), 5),
        Goal("fetch, times as fast: ≥ 5", ratio(_FETCH, seconds), 5),
        Goal("longest delay of a log line, seconds: ≤ 2", max(delays_s, default=None), 2, is_at_most=True),
    ]


def markdown(cells: Cells, size: Size, about: str) -> str:
    lines = [
        "# Azure ML: amlctl beside the SDK",
        "",
        f"- Day: {datetime.now(UTC).date().isoformat()}. Machine: {about}. azure-ai-ml {version('azure-ai-ml')}.",
        f"- A loopback Azure ML with {_ROUND_TRIP_S * 1000:g} ms added to each request of the control plane; blobs in",
        "  Azurite over a link of that round trip. Neither login nor encryption takes a round trip of its own.",
        f"- Medians of whole processes. The code folder has {size.code_files} files of 1 to 9 kB. `calls` are those of",
        "  the control plane, `requests` those to the blobs; `sent` and `received` are bytes to and from the blobs.",
        "- The SDK's side is `benchmarks/sdk_way.py`: `MLClient` and its `jobs.create_or_update`, `get`, `stream` and",
        "  `download`.",
        "",
        "| goal | measured | |",
        "|---|---:|---|",
        *(f"| {one.text} | {_number(one.measured)} | {one.verdict} |" for one in goals(cells)),
        "",
        "| step | | median | fastest–slowest | calls | requests | sent | received | amlctl is |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for step in (_FIRST, _UNCHANGED, _CHANGED, _STATUS, _FETCH):
        shown = f"fetch of {size.outputs} outputs of 20 kB" if step == _FETCH else step
        ours = cells.get((step, AmlctlSide.name))
        for side in (AmlctlSide.name, SdkSide.name):
            if cell := cells.get((step, side)):
                lines.append(f"| {shown} | {side} | {' | '.join(_row(cell, ours))} |")
    lines += [
        "",
        "| log of a running job | lines | not shown | median delay | longest delay | |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for side in (AmlctlSide.name, SdkSide.name):
        if cell := cells.get((_LOG, side)):
            delays = [_s(of(cell.delays_s)) if cell.delays_s else "" for of in (statistics.median, max)]
            values = [str(len(cell.delays_s)), str(cell.lines_missing), *delays, cell.trouble.replace("|", "/")]
            lines.append(f"| {side} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def _row(cell: Cell, ours: Cell | None) -> list[str]:
    median_s = statistics.median(cell.seconds)
    against = ""
    if ours is not None and cell is not ours:
        against = f"{median_s / statistics.median(ours.seconds):.1f} × as fast"
    return [
        _s(median_s),
        f"{min(cell.seconds):.2f}–{max(cell.seconds):.2f} s",
        f"{statistics.median(cell.calls):g}",
        f"{statistics.median(cell.blob_requests):,g}",
        f"{statistics.median(cell.sent_bytes) / 1e6:,.3f} MB",
        f"{statistics.median(cell.received_bytes) / 1e6:,.3f} MB",
        against,
    ]


def _s(seconds: float) -> str:
    return f"{seconds:.2f} s"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _tell(text: str) -> None:
    print(f"azureml: {text}", file=sys.stderr, flush=True)
