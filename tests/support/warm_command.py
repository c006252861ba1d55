"""`amlctl` without the time that Python takes to start: a process that has imported everything forks for each command.

A command gets its own process, arguments, variables, folder and streams, and runs the same `main()`. Most of a short
command's time is imports: with `azure.ai.ml` two seconds. Tests about starting (what is imported, signals, locales,
terminals) start Python instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_REPOSITORY = Path(__file__).parents[2]
SDKS = ("azure.ai.ml", "azure.identity", "azure.storage.blob")


@dataclass
class WarmCommand:
    """The process that forks."""

    folder: Path
    process: subprocess.Popen[bytes]

    def program(self, module: str, *arguments: object) -> int:
        """Run the `main()` of a module of the tests in a process of its own; its exit code."""
        return self([*map(str, arguments)], _REPOSITORY, os.environ, 60, module=module).returncode

    def __call__(
        self,
        arguments: Sequence[str],
        cwd: Path,
        variables: Mapping[str, str],
        limit_s: float,
        *,
        module: str = "amlctl.cli.app",
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one command, or the `main()` of another module, to its end. Raises subprocess.TimeoutExpired."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open(os.devnull, "rb") as nothing:
            request = json.dumps([module, list(arguments), os.fspath(cwd), dict(variables)])
            data = request.encode("utf-8", "surrogateescape")
            with socket.socket(socket.AF_UNIX) as to_server:
                to_server.settimeout(limit_s)
                to_server.connect(str(self.folder / "socket"))
                streams = [stream.fileno() for stream in (nothing, out, err)]
                socket.send_fds(to_server, [len(data).to_bytes(8, "big")], streams)
                to_server.sendall(data)
                pid = int(_line(to_server))
                try:
                    code = int(_line(to_server))
                except TimeoutError:
                    os.kill(pid, signal.SIGKILL)
                    raise subprocess.TimeoutExpired(list(arguments), limit_s, *map(_content, (out, err))) from None
            return subprocess.CompletedProcess(list(arguments), code, *map(_content, (out, err)))


@contextlib.contextmanager
def warm_command(*modules: str) -> Iterator[WarmCommand]:
    """`modules` are imported beside amlctl's own."""
    # TMPDIR may be longer than the address of a socket can be.
    with tempfile.TemporaryDirectory(prefix="amlctl-warm-", dir="/tmp") as folder:
        command = [sys.executable, "-m", __name__, folder, *modules]
        with subprocess.Popen(command, cwd=_REPOSITORY, stdin=subprocess.PIPE) as process:
            ready = Path(folder, "ready")
            while not ready.exists():
                assert process.poll() is None, "the forking process has ended"
                time.sleep(0.02)
            try:
                yield WarmCommand(Path(folder), process)
            finally:
                assert process.stdin is not None
                process.stdin.close()  # its end ends the process


def _line(connection: socket.socket) -> bytes:
    received = b""
    while not received.endswith(b"\n"):
        piece = connection.recv(1)
        if not piece:
            raise ConnectionError("the forking process has ended")
        received += piece
    return received


def _content(stream: IO[bytes]) -> bytes:
    stream.seek(0)
    return stream.read()


def _serve(folder: Path, modules: Sequence[str]) -> None:
    import gc
    import importlib
    import pkgutil
    import select

    import amlctl

    for module in modules:
        importlib.import_module(module)
    for found in pkgutil.walk_packages(amlctl.__path__, "amlctl."):
        if "__main__" not in found.name and "program" not in found.name and "templates" not in found.name:
            importlib.import_module(found.name)
    _keep_command_objects()
    gc.collect()
    gc.freeze()
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    under_way: dict[int, socket.socket] = {}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen(64)
        (folder / "ready").touch()
        while True:
            readable, _, _ = select.select([listener, ended, sys.stdin], [], [])
            if ended in readable:
                os.read(ended, 4096)
                _report_ended(under_way)
            if sys.stdin in readable:
                return
            if listener in readable:
                connection, _ = listener.accept()
                request, streams = _request(connection)
                pid = os.fork()
                if pid == 0:
                    module, arguments, cwd, variables = json.loads(request)
                    _become(module, arguments, cwd, variables, streams)
                for stream in streams:
                    os.close(stream)
                connection.sendall(b"%d\n" % pid)
                under_way[pid] = connection


def _keep_command_objects() -> None:
    """Typer makes a command from its function in 10 ms: here once, and not in each fork."""
    from functools import cache

    from amlctl.cli import app, command_group

    app.root_command = cache(app.root_command)
    command_group.load = cache(command_group.load)
    app.root_command()
    for name in command_group.COMMANDS:
        command_group.load(name)


def _report_ended(under_way: dict[int, socket.socket]) -> None:
    while under_way:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        with under_way.pop(pid) as connection, contextlib.suppress(OSError):
            connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _request(connection: socket.socket) -> tuple[str, Sequence[int]]:
    header, streams, _, _ = socket.recv_fds(connection, 8, 3)
    length, request = int.from_bytes(header, "big"), b""
    while len(request) < length:
        request += connection.recv(1 << 16)
    return request.decode("utf-8", "surrogateescape"), streams


def _become(
    module: str, arguments: Sequence[str], cwd: str, variables: Mapping[str, str], streams: Sequence[int]
) -> None:
    """In the command's process: its folder, variables and streams, then `main()` as `python -m` calls it."""
    import importlib
    import random
    import threading

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    random.seed()
    sys.stdin = open(0, encoding="utf-8")  # noqa: SIM115  they end with the process
    sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    sys.__dict__.update(__stdin__=sys.stdin, __stdout__=sys.stdout, __stderr__=sys.stderr)
    program = os.fspath(_REPOSITORY / "amlctl/__main__.py")
    sys.argv = [program, *arguments]
    sys.orig_argv = [sys.executable, "-m", "amlctl", *arguments]

    code: str | int | None = 1
    try:
        importlib.import_module(module).main()
        code = 0
    except SystemExit as exit_:
        code = exit_.code or 0
    except BaseException:  # noqa: BLE001  as at the end of a program
        traceback.print_exc()
    sys.stdout.flush()
    if all(thread.daemon or thread is threading.current_thread() for thread in threading.enumerate()):
        os._exit(code if isinstance(code, int) else 1)  # else all that was imported would be taken apart first
    sys.exit(code)  # Python ends the threads


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), sys.argv[2:])
