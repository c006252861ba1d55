"""`doctor --probe`: make, read, change and remove one of each thing in the store and in the workspace.

Each thing is registered for removal before it is made, and removed at the end however the probe ends.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import amlctl
from amlctl.core.content_id import content_id
from amlctl.core.events import EventSink, Note
from amlctl.core.message import Command
from amlctl.core.store_keys import run_prefix
from amlctl.errors import AmlctlError, CheckFailed, Conflict, NotFound
from amlctl.localfs.atomic import scratch_folder
from amlctl.operations.compute import checked_target
from amlctl.operations.context import Context
from amlctl.stores.contract import FileBody, Store

_LARGE_BYTES = 9 << 20
"""More than goes in one request, so that it travels as blocks."""
_LIBRARIES = ("azure-core", "azure-identity", "azure-storage-blob", "azure-ai-ml")


@dataclass(frozen=True)
class ProbeStep:
    """`message` is what was seen, or the service's refusal."""

    name: str
    ok: bool
    seconds: float
    message: str = ""


@dataclass(frozen=True)
class ProbeResult:
    """`versions` by name, of what took part."""

    steps: tuple[ProbeStep, ...]
    versions: Mapping[str, str]

    @property
    def ok(self) -> bool:
        return all(step.ok for step in self.steps)

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "versions": dict(self.versions), "probe": [asdict(step) for step in self.steps]}


def hidden(text: str, names: Mapping[str, str]) -> str:
    """The text with each of the names (subscription, account …) replaced by what it is."""
    for name, kind in sorted(names.items(), key=lambda one: -len(one[0])):
        text = text.replace(name, f"<{kind}>") if name else text
    return text


class Probe:
    """Satisfies `ProbeSteps`. The sink gets a note before each step that may take long."""

    def __init__(self, sink: EventSink) -> None:
        self.id = f"amlctl-probe-{secrets.token_hex(4)}"
        self.steps: list[ProbeStep] = []
        self.names: dict[str, str] = {}
        self._removals: list[tuple[str, Callable[[], str]]] = []
        self._sink = sink

    def try_step(self, name: str, action: Callable[[], str]) -> bool:
        began = time.monotonic()
        try:
            message, ok = action(), True
        except AmlctlError as error:
            message, ok = error.message, False
        except Exception as error:  # noqa: BLE001  what a client does not expect belongs in the table
            message, ok = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}", False
        self.steps.append(ProbeStep(name, ok, round(time.monotonic() - began, 2), message))
        return ok

    def remove_at_end(self, name: str, action: Callable[[], str]) -> None:
        self._removals.append((name, action))

    def tell(self, message: str) -> None:
        self._sink(Note(message))

    def remove_all(self) -> None:
        while self._removals:
            name, action = self._removals.pop()
            self.try_step(f"{name}: remove", action)

    def result(self) -> ProbeResult:
        steps = tuple(
            ProbeStep(step.name, step.ok, step.seconds, hidden(step.message, self.names)) for step in self.steps
        )
        return ProbeResult(steps, _versions())


def probe(context: Context, target: str) -> ProbeResult:
    """`target` is the compute target that a job of a minute uses. Raises what opening the store and `checked_target`
    raise."""
    own, present = checked_target(context, target)
    if own is not None and present is None:
        raise NotFound(f"compute target {target} is not made yet", hint=Command("compute", "create", target))
    store = context.store
    found = Probe(context.sink)
    account = urlsplit(store.url).hostname or ""
    found.names.update({store.url: "store", account: "account host", account.partition(".")[0]: "account"})
    found.remove_at_end("blob", lambda: _remove(store, found.id))
    try:
        _probe_store(found, store)
        if (service := context.workspace.service) is not None:
            service.probe(found, target)
    finally:
        found.remove_all()
    return found.result()


def _probe_store(found: Probe, store: Store) -> None:
    prefix = run_prefix(found.id)
    small, large, head = f"{prefix}small", f"{prefix}large", f"{prefix}swapped"
    data = os.urandom(_LARGE_BYTES)

    def expect(is_so: bool, what: str) -> str:
        if not is_so:
            raise CheckFailed(what)
        return ""

    def refused_swap() -> str:
        try:
            store.swap(head, b"3", expected="of another")
        except Conflict:
            return "refused, as it must be"
        raise CheckFailed("a swap was accepted although the value is another one")

    def gone() -> str:
        store.delete(small)
        try:
            store.get(small)
        except NotFound:
            return ""
        raise CheckFailed("it can still be read")

    def swap() -> str:
        version = store.swap(head, b"1", expected=None)
        store.swap(head, b"2", expected=version)
        return expect((store.get_versioned(head) or (b"",))[0] == b"2", "another value is read")

    with scratch_folder() as folder:
        source, target = folder / "source", folder / "target"
        source.write_bytes(data)
        target.touch()
        body, parts = FileBody(source, len(data), content_id(data)), [data[:1000], data[1000:2000]]
        for name, action in (
            ("create", lambda: expect(store.put(small, b"hello"), "it was there already")),
            ("create again", lambda: expect(not store.put(small, b"other"), "it was replaced")),
            ("read", lambda: expect(store.get(small) == b"hello", "other bytes are read")),
            ("read a range", lambda: expect(store.get(small, start=1, length=3) == b"ell", "other bytes are read")),
            ("properties", lambda: expect(store.info(small) is not None, "it is not found")),
            ("replace", lambda: expect(store.put(small, b"changed", replace=True), "it was not replaced")),
            ("list", lambda: expect(small in [one.key for one in store.list(prefix)], "it is not listed")),
            ("create in blocks", lambda: expect(store.put(large, body), "it was there already")),
            ("create in parts", lambda: expect(store.put(f"{prefix}parts", parts), "it was there already")),
            ("download", lambda: expect(store.download(large, target) == len(data), "another size arrives")),
            ("compare", lambda: expect(target.read_bytes() == data, "other bytes arrive")),
            ("swap", swap),
            ("swap of an old version", refused_swap),
            ("delete", gone),
        ):
            found.try_step(f"blob: {name}", action)


def _remove(store: Store, probe: str) -> str:
    prefix = run_prefix(probe)
    for entry in list(store.list(prefix)):
        store.delete(entry.key)
    left = [entry.key for entry in store.list(prefix)]
    if left:
        raise CheckFailed(f"{len(left)} blobs are left below {prefix}")
    return "nothing is left"


def _versions() -> dict[str, str]:
    found = {"amlctl": amlctl.__version__, "Python": platform.python_version(), "system": platform.platform()}
    for library in _LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
