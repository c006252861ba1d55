"""Repeated requests are events with reason and wait; a host that never answers is given up after a bound."""

from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from amlctl.azure_access import http, retry
from amlctl.azure_access.login import Login
from amlctl.core.events import Event, Retried, Unanswered
from amlctl.errors import ServiceUnavailable
from amlctl.stores.azure_blob.store import AzureBlobStore
from amlctl.workspaces.azureml.address import Cloud
from amlctl.workspaces.azureml.clients import Exchange
from tests.support.azurite import Azurite
from tests.support.fault_proxy import FaultProxy, LoseAnswer, Reply, Seen, fault_proxy

KEY = {"AZURE_STORAGE_KEY": "eA=="}
BUSY = Reply(503, {"x-ms-error-code": "ServerBusy", "x-ms-request-id": "1", "Retry-After": "3"})


class Silent:
    """A host that accepts every connection and never says a word."""

    def __init__(self) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._held: list[socket.socket] = []
        self.url = "http://{}:{}".format(*self._server.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        try:
            while True:
                self._held.append(self._server.accept()[0])
        except OSError:
            return

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for held in self._held:
            held.close()


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Silent]:
    """With bounds that a test can wait for: five attempts, or fewer on a busy machine."""
    monkeypatch.setattr(http, "ANSWER_S", 0.4)
    monkeypatch.setattr(http, "_QUIET_S", 0.15)
    monkeypatch.setattr(retry, "SILENCE_S", 2.0)
    host = Silent()
    yield host
    host.close()


@pytest.fixture
def proxy(azurite: Azurite) -> Iterator[FaultProxy]:
    with fault_proxy(azurite.url) as running:
        yield running


@pytest.fixture
def events() -> list[Event]:
    return []


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def store(azurite: Azurite, proxy: FaultProxy, events: list[Event], waits: list[float]) -> Iterator[AzureBlobStore]:
    """Through the proxy; waits are recorded and not waited for."""
    url, variables = f"{proxy.url}/{azurite.new_container()}", {"AZURE_STORAGE_KEY": azurite.key}
    with closing(AzureBlobStore(url, variables, sleep=waits.append, tell=events.append)) as opened:
        opened.put("there", b"bytes")
        events.clear()
        waits.clear()
        yield opened


def times(number: int, fault: object) -> Callable[[Seen], object]:
    left = [number]

    def act(seen: Seen) -> object:
        left[0] -= 1
        return fault if left[0] >= 0 else None

    return act


@pytest.mark.parametrize(
    ("fault", "reason", "least_s"),
    [
        (BUSY, "503 server busy", 3.0),
        (Reply(429, {"x-ms-error-code": "TooManyRequests", "Retry-After": "2"}), "429 too many requests", 2.0),
        (Reply(503, {"Retry-After": "3600"}), "503 service unavailable, which asks to wait 3,600 s", 60.0),
        (Reply(400, {"x-ms-error-code": "Md5Mismatch"}), "400 md5 mismatch", 0.2),
        (LoseAnswer(), "the connection ended without an answer", 0.2),
    ],
)
def test_each_attempt_is_an_event(
    store: AzureBlobStore,
    proxy: FaultProxy,
    events: list[Event],
    waits: list[float],
    fault: object,
    reason: str,
    least_s: float,
) -> None:
    # A kept connection that ends is replaced without a word: that is how servers end them.
    proxy.act = times(3 if isinstance(fault, LoseAnswer) else 2, fault)  # type: ignore[assignment]
    assert store.get("there") == b"bytes"
    reported = [event for event in events if isinstance(event, Retried)]
    assert [(event.name, event.attempt, event.most) for event in reported] == [
        ("blob store", 1, 5),
        ("blob store", 2, 5),
    ]
    assert {event.reason for event in reported} == {reason}
    assert [event.wait_s for event in reported] == waits
    assert all(event.wait_s >= least_s for event in reported)


def test_the_error_says_what_was_tried(store: AzureBlobStore, proxy: FaultProxy) -> None:
    proxy.act = lambda seen: BUSY
    with pytest.raises(ServiceUnavailable, match=r"503 ServerBusy .*\(6 attempts in \d+ s\)"):
        store.get("there")


def test_a_silent_host_is_given_up_and_then_left_at_once(silent: Silent) -> None:
    events: list[Event] = []
    url = f"{silent.url}/account/data"
    with closing(AzureBlobStore(url, KEY, sleep=lambda s: None, tell=events.append)) as store:
        _give_up(store)
    attempts = [event.attempt for event in events if isinstance(event, Retried)]
    assert len(attempts) <= 5
    assert attempts == list(range(1, len(attempts) + 1))
    assert any(isinstance(event, Unanswered) for event in events)


def _give_up(store: AzureBlobStore) -> None:
    with pytest.raises(ServiceUnavailable, match=r"no answer within 0 s \([1-6] attempt"):
        store.get("there")
    with pytest.raises(ServiceUnavailable, match=r"\(1 attempt in"):  # a lease that is given back, say
        store.delete("there")


def test_retries_of_azure_ml_are_reported(silent: Silent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "SILENCE_S", 1000.0)
    events: list[Event] = []
    cloud = Cloud("mine", silent.url, silent.url, "x", silent.url, silent.url)
    exchange = Exchange({}, Login(), cloud, sleep=lambda s: None, tell=events.append)
    with pytest.raises(ServiceUnavailable, match=r"no answer within 0 s \(5 attempts"):
        exchange.send("GET", f"{silent.url}/subscriptions/s", {})
    reported = [event for event in events if isinstance(event, Retried)]
    assert {(event.name, event.reason) for event in reported} == {("Azure ML", "no answer within 0 s")}


def test_an_answer_that_is_cut_in_its_headers_is_asked_for_again() -> None:
    """Before, the headers that were missing counted as absent, and the value as empty."""
    whole = b"HTTP/1.1 200 OK\r\nx-ms-request-id: 1\r\nEtag: x\r\nContent-Length: 5\r\n\r\nbytes"
    said = [whole[:40], whole[:45], whole]
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for answer in said:
                with server.accept()[0] as connection:
                    connection.recv(1 << 16)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        url = "http://{}:{}/account/data".format(*server.getsockname())
        events: list[Event] = []
        with closing(AzureBlobStore(url, KEY, sleep=lambda s: None, tell=events.append)) as store:
            assert store.get("there") == b"bytes"
        thread.join()
    reasons = {event.reason for event in events if isinstance(event, Retried)}
    assert reasons == {"the connection ended in the middle of an answer"}


def test_a_file_that_cannot_grow_is_not_a_failure_of_the_service(
    store: AzureBlobStore, events: list[Event], tmp_path: Path
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    store.put("there", b"x" * 10_000, replace=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))  # SIGXFSZ is ignored by Python
    try:
        with pytest.raises(ServiceUnavailable, match="larger than allowed"):
            store.download("there", tmp_path / "target")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert events == []
