"""What the product gets instead of threads, clocks and file locks while it is simulated.

- A pool runs each job when it is submitted: several workers of one command have one order.
- A background thread (the renewal of a lease) does nothing until it is joined: the harshest machine, one that sleeps.
- Time passes when the simulator says so. Times of local files stay real, since the disk is.
- Locks between commands of one machine are kept by the simulator, which knows who was killed.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

import amlctl

EPOCH_S = 1_800_000_000.0
_DISK_MODULES = ("amlctl.localfs.",)
"""Their clock is that of the disk."""
_NOT_SIMULATED = ("amlctl.cli", "amlctl.workspaces", "amlctl.stores.azure_blob", "amlctl.__main__")


class Gone(BaseException):
    """Unwinds a thread whose world has ended. What it does on its way has no effect."""


class Host:
    """What runs commands: the scheduler while actors run, a plain clock otherwise. One at a time."""

    def __init__(self) -> None:
        self.now_s = EPOCH_S

    def now(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def machine(self) -> str:
        return "machine"

    def locked(self, path: Path) -> AbstractContextManager[None]:
        return nullcontext()


_host: Host = Host()


def host() -> Host:
    return _host


def set_host(new: Host) -> None:
    global _host
    _host = new


class InlinePool:
    """Satisfies what the product uses of ThreadPoolExecutor."""

    def __init__(self, max_workers: int | None = None, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> InlinePool:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        try:
            future.set_result(call(*arguments, **named))
        except Exception as error:  # noqa: BLE001 - as a pool does
            future.set_exception(error)
        return future

    def map(self, call: Callable[..., Any], *items: Any, timeout: float | None = None) -> Iterator[Any]:
        futures = [self.submit(call, *arguments) for arguments in zip(*items, strict=False)]
        return (future.result() for future in futures)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        pass


class SleepingThread:
    """Does its work when it is joined, never before."""

    def __init__(self, *_: Any, target: Callable[..., None] | None = None, args: Any = (), **__: Any) -> None:
        self._target = target
        self._arguments = args

    def start(self) -> None:
        pass

    def is_alive(self) -> bool:
        return False

    def join(self, timeout: float | None = None) -> None:
        target, self._target = self._target, None
        if target is not None:
            target(*self._arguments)


class _Time(types.ModuleType):
    """`time` for code that is not about the disk."""

    def __init__(self) -> None:
        super().__init__("time")

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)

    @staticmethod
    def time() -> float:
        return host().now()

    @staticmethod
    def monotonic() -> float:
        return host().now()

    @staticmethod
    def sleep(seconds: float) -> None:
        host().sleep(seconds)


class _Platform(types.ModuleType):
    """`platform` with a machine for each clone."""

    def __init__(self, real: types.ModuleType) -> None:
        super().__init__("platform")
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    @staticmethod
    def node() -> str:
        return host().machine()


class _Datetime(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
        return datetime.fromtimestamp(host().now(), tz)


def _utc_now() -> datetime:
    from datetime import UTC

    return datetime.fromtimestamp(host().now(), UTC)


def _passed_s() -> float:
    return host().now()


@contextmanager
def _locked(path: Path, purpose: str, sink: object, *_: Any, **__: Any) -> Iterator[None]:
    path.touch()
    with host().locked(path):
        yield


@contextmanager
def _uninterrupted(*_: object) -> Iterator[None]:
    yield


def _modules() -> list[types.ModuleType]:
    for found in pkgutil.walk_packages(amlctl.__path__, "amlctl."):
        if not found.name.startswith(_NOT_SIMULATED):
            with suppress(ImportError):
                importlib.import_module(found.name)
    return [
        module
        for name, module in sys.modules.items()
        if name.startswith("amlctl.") and not name.startswith(_NOT_SIMULATED)
    ]


@contextmanager
def simulated() -> Iterator[None]:
    """Within it the product's modules have these instead of the real things."""
    modules = _modules()
    import platform

    from amlctl import parallel
    from amlctl.localfs import locks, machine

    # Keyed by the real object's identity: a name that a module has imported is found whatever it is called there.
    everywhere: dict[int, Any] = {
        id(ThreadPoolExecutor): InlinePool,
        id(threading.Thread): SleepingThread,
        id(platform): _Platform(platform),
        id(machine.utc_now): _utc_now,
        id(machine.passed_s): _passed_s,
        id(locks.exclusive): _locked,
        id(parallel.ended_by_interrupt): _uninterrupted,
    }
    off_disk: dict[int, Any] = {id(time): _Time(), id(time.sleep): _Time.sleep, id(datetime): _Datetime}
    undo: list[Callable[[], None]] = []

    def replaced(holder: Any, name: str, value: Any) -> None:
        before = getattr(holder, name)
        undo.append(lambda: setattr(holder, name, before))
        setattr(holder, name, value)

    for module in modules:
        table = everywhere if module.__name__.startswith(_DISK_MODULES) else {**everywhere, **off_disk}
        for name, value in list(vars(module).items()):
            if id(value) in table:
                replaced(module, name, table[id(value)])
            elif isinstance(value, types.FunctionType) and value.__module__ == module.__name__:
                _replace_defaults(value, table, replaced)
            elif isinstance(value, type) and value.__module__ == module.__name__:
                for method in vars(value).values():
                    if isinstance(method, types.FunctionType):
                        _replace_defaults(method, table, replaced)
                    elif isinstance(method, functools.cached_property) and hasattr(method, "lock"):
                        # Python 3.11 keeps one lock for all objects of a class, and other actors are other processes.
                        replaced(method, "lock", nullcontext())
    try:
        yield
    finally:
        for step in reversed(undo):
            step()


def _replace_defaults(call: types.FunctionType, table: dict[int, Any], replaced: Callable[..., None]) -> None:
    if call.__kwdefaults__ and any(id(value) in table for value in call.__kwdefaults__.values()):
        replaced(
            call, "__kwdefaults__", {name: table.get(id(value), value) for name, value in call.__kwdefaults__.items()}
        )
    if call.__defaults__ and any(id(value) in table for value in call.__defaults__):
        replaced(call, "__defaults__", tuple(table.get(id(value), value) for value in call.__defaults__))
