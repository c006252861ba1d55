"""A folder to a Blob container and back, over a link, beside the tools that others use for it.

Each round starts a service of its own. Every step is taken by all clients in turn on the same tree, each with its own
container; what a client downloaded is compared with the tree.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from azure.storage.blob import BlobServiceClient
from blob_service import running_blob_service
from clients import ACCOUNT, Call, Client, Place, clients
from link import Link, running_link
from measure import memory_floor
from sandbox import Sandbox, working_folder
from workloads import WORKLOADS, Step, Workload

sys.path.append(str(Path(__file__).parents[2]))
from tests.support.azurite import KEY, running_azurite

_SAMPLE_S = 0.05
_LONGEST_S = 900.0
"""A client that takes longer than this hangs, and has failed."""


@dataclass(frozen=True)
class Line:
    """A round trip in milliseconds and a bandwidth in Mbit/s; written `20` or `20@100`."""

    round_trip_ms: float
    megabits: float | None = None

    @classmethod
    def parse(cls, text: str) -> Line:
        round_trip, _, rate = text.partition("@")
        return cls(float(round_trip), float(rate) if rate else None)

    def __str__(self) -> str:
        return f"{self.round_trip_ms:g} ms" + (f", {self.megabits:g} Mbit/s" if self.megabits else "")


@dataclass
class Cell:
    """One client at one step: a sample a round. `peak_bytes` is the memory of all its processes together."""

    seconds: list[float] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    sent_bytes: list[int] = field(default_factory=list)
    received_bytes: list[int] = field(default_factory=list)
    peak_bytes: list[int] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    trouble: str = ""


@dataclass
class Transfer:
    """One table: a workload over one line to one service."""

    workload: Workload
    data: str
    service: str
    line: Line
    clients: Sequence[str]
    cells: dict[tuple[str, str], Cell] = field(default_factory=dict)
    """By step and client."""


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    scale = 0.02 if options.quick else options.scale
    repetitions = 1 if options.quick else options.repetitions
    blocks: list[str] = []
    with working_folder("transfer", options.work) as folder:
        sandbox = Sandbox(folder, repetitions, scale, _tell)
        measured = [one for one in clients(sandbox) if not options.clients or one.name in options.clients]
        for client in list(measured):
            if reason := client.missing():
                _tell(f"{client.name} is left out: {reason}")
                measured.remove(client)
        for workload in WORKLOADS:
            if options.only and workload.name not in options.only:
                continue
            _tell(f"{workload.name}: makes its data")
            tree = sandbox.folder / workload.name / "data"
            size = workload.write(tree, scale)
            for service in options.service:
                for line in options.link:
                    done = _measure(sandbox, workload, tree, service, line, measured, options.steps)
                    done.data = f"{workload.data} ({size / 1e6:.0f} MB{f', scale {scale:g}' if scale != 1 else ''})"
                    blocks.append(markdown(done))
                    print(blocks[-1], flush=True)
                    if options.out:
                        settings = [f"- {client.name}: `{client.settings}`" for client in measured]
                        options.out.write_text("\n".join([*settings, "", *blocks]))
            shutil.rmtree(tree.parent)
    return 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    names = [workload.name for workload in WORKLOADS]
    parser = argparse.ArgumentParser(prog="run.py transfer", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the data, once: does it run at all?")
    parser.add_argument("--only", type=_list, default=[], metavar="NAME,…", help=f"of {', '.join(names)}")
    parser.add_argument(
        "--steps", type=_list, default=[], metavar="STEP,…", help="default: all; `cold` is always first"
    )
    parser.add_argument("--clients", type=_list, default=[], metavar="NAME,…", help="default: all")
    parser.add_argument("--service", type=_list, default=["azurite"], metavar="azurite,memory")
    parser.add_argument(
        "--link",
        type=lambda text: [Line.parse(part) for part in text.split(",")],
        default=[Line(0), Line(20), Line(60)],
        metavar="MS[@MBIT],…",
        help="round trip, and the line's bandwidth; default: 0,20,60",
    )
    parser.add_argument("--repetitions", type=int, default=3, metavar="N", help="rounds; default: 3")
    parser.add_argument("--scale", type=float, default=1.0, metavar="F", help="shrink the data")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where the data is made (8 GB); default: temporary")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the tables as Markdown, too")
    options = parser.parse_args(arguments)
    if unknown := set(options.only) - set(names):
        parser.error(f"no workload {sorted(unknown)[0]!r}; there are {', '.join(names)}")
    if unknown := set(options.service) - {"azurite", "memory"}:
        parser.error(f"no service {sorted(unknown)[0]!r}; there are azurite and memory")
    return options


def _measure(
    sandbox: Sandbox,
    workload: Workload,
    tree: Path,
    service: str,
    line: Line,
    measured: Sequence[Client],
    wanted: Sequence[str],
) -> Transfer:
    done = Transfer(workload, "", service, line, [client.name for client in measured])
    for number in range(sandbox.repetitions):
        folder = sandbox.folder / "round"
        folder.mkdir()
        with ExitStack() as stack:
            link, url = stack.enter_context(_service(service))
            places = {}
            with BlobServiceClient(url, credential={"account_name": ACCOUNT, "account_key": KEY}) as account:
                for position, client in enumerate(measured):
                    account.create_container(f"client-{position}")
                    state = folder / f"client-{position}"
                    state.mkdir()
                    place = places[client.name] = Place(url, KEY, f"client-{position}", state)
                    if call := client.prepare(place):
                        _run(call)
            for step in workload.steps:
                if not wanted or step.name in wanted or step.name == "cold":
                    _step(sandbox, done, step, tree, link, measured, places, number)
        shutil.rmtree(folder)
    return done


def _step(
    sandbox: Sandbox,
    done: Transfer,
    step: Step,
    tree: Path,
    link: Link,
    measured: Sequence[Client],
    places: dict[str, Place],
    number: int,
) -> None:
    sandbox.tell(f"{done.workload.name}, {done.service}, {done.line}, round {number + 1}: {step.name}")
    step.change(tree, random.Random(f"{done.workload.name} {step.name} {done.service} {done.line} {number}"))
    for client in measured:
        place = places[client.name]
        target = place.state / "down"
        cell = done.cells.setdefault((step.name, client.name), Cell())
        with client.source(place, tree) as source:
            call = client.down(place, target) if step.is_download else client.up(place, source, step.name)
            os.sync()  # what the client before has left to write shall not slow this one down
            if not step.is_unmeasured:
                link.shape(done.line.round_trip_ms / 1000, done.line.megabits and done.line.megabits * 1e6)
            link.reset()
            try:
                seconds, peak, cpu_s = _run(call)
            except CallFailed as error:
                cell.trouble = "failed"
                sandbox.tell(f"{client.name}: {error}")
                continue
            finally:
                counts = link.counts()
                link.shape(0.0)
        cell.seconds.append(seconds)
        cell.requests.append(counts.requests)
        cell.sent_bytes.append(counts.sent_bytes)
        cell.received_bytes.append(counts.received_bytes)
        cell.peak_bytes.append(peak)
        cell.cpu_s.append(cpu_s)
        if step.is_download and (differs := _difference(tree, client.arrived(target, tree))):
            cell.trouble = "wrong result"
            sandbox.tell(f"{client.name}: {differs}")


@contextmanager
def _service(kind: str) -> Iterator[tuple[Link, str]]:
    """A link to a fresh service, and the account's URL behind it."""
    with ExitStack() as stack:
        if kind == "memory":
            port = stack.enter_context(running_blob_service())
        else:
            port = urlsplit(stack.enter_context(running_azurite()).url).port or 0
        link = stack.enter_context(running_link("127.0.0.1", port))
        yield link, f"http://127.0.0.1:{link.port}/{ACCOUNT}"


class CallFailed(Exception):
    """A client did not end well."""


def _run(call: Call) -> tuple[float, int, float]:
    """Seconds, peak memory of all processes together, and processor seconds."""
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            call.argv, cwd=call.cwd, env=call.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        ended = threading.Event()
        peaks = [0]
        sampler = threading.Thread(target=_sample, args=(process.pid, ended, peaks))
        sampler.start()
        killer = threading.Timer(_LONGEST_S, process.kill)
        killer.start()
        _, status, usage = os.wait4(process.pid, 0)
        killer.cancel()
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        ended.set()
        sampler.join()
        if process.returncode:
            output.seek(0)
            said = output.read().decode(errors="replace")[-2000:]
            raise CallFailed(f"{' '.join(call.argv[:2])} …: exit code {process.returncode}\n{said}")
    # Samples can miss a peak; the system's own figure is that of one process, and not less than this one's.
    largest = usage.ru_maxrss * 1024
    peak = max(peaks[0], largest if largest > 1.05 * memory_floor() else 0)
    return seconds, peak, usage.ru_utime + usage.ru_stime


def _sample(pid: int, ended: threading.Event, peaks: list[int]) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    while not ended.wait(_SAMPLE_S):
        peaks[0] = max(peaks[0], _resident_pages(str(pid)) * page)


def _resident_pages(pid: str) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError):
        return 0
    return pages + sum(map(_resident_pages, children))


def _difference(tree: Path, copy: Path) -> str:
    """In words; empty where both hold the same files. What a client keeps although it has gone is none."""
    for path in tree.rglob("*"):
        other = copy / path.relative_to(tree)
        if path.is_file() and not (other.is_file() and _is_same(path, other)):
            return f"{path.relative_to(tree)} is not what it should be"
    return ""


def _is_same(one: Path, other: Path) -> bool:
    if one.stat().st_size != other.stat().st_size:
        return False
    with one.open("rb") as left, other.open("rb") as right:
        while piece := left.read(1 << 20):
            if piece != right.read(1 << 20):
                return False
    return True


def markdown(done: Transfer) -> str:
    head = ("", "median", "fastest–slowest", "requests", "sent", "received", "processor", "peak memory", "amlctl is")
    lines = [f"### {done.workload.name}: {done.data}; {done.service}, {done.line}", ""]
    for step in done.workload.steps:
        rows = [(name, done.cells[step.name, name]) for name in done.clients if (step.name, name) in done.cells]
        if step.is_unmeasured or not rows:
            continue
        lines += [f"{step.name}", "", f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
        ours = rows[0][1]
        lines += [f"| {' | '.join((name, *_shown(cell, ours)))} |" for name, cell in rows] + [""]
    return "\n".join(lines)


def _shown(cell: Cell, ours: Cell) -> list[str]:
    if not cell.seconds:
        return [cell.trouble, *[""] * 7]
    median = statistics.median(cell.seconds)
    against = ""
    if cell is not ours and ours.seconds:
        against = f"{median / statistics.median(ours.seconds):.1f} × as fast"
    return [
        f"{median:.2f} s" + (f" ({cell.trouble})" if cell.trouble else ""),
        f"{min(cell.seconds):.2f}–{max(cell.seconds):.2f} s",
        f"{statistics.median(cell.requests):,.0f}",
        f"{statistics.median(cell.sent_bytes) / 1e6:,.2f} MB",
        f"{statistics.median(cell.received_bytes) / 1e6:,.2f} MB",
        f"{statistics.median(cell.cpu_s):.1f} s",
        f"{max(cell.peak_bytes) / 1e6:.0f} MB",
        against,
    ]


def _list(text: str) -> list[str]:
    return text.split(",")


def _tell(text: str) -> None:
    print(f"transfer: {text}", file=sys.stderr, flush=True)
