"""Ctrl-C while a connection is being made: the name is looked up for long, or the host takes it and says nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from amlctl.errors import Interrupted
from amlctl.stores.azure_blob.store import AzureBlobStore

LIMIT_S = 20


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(LIMIT_S)
        yield server


@pytest.mark.parametrize("is_proxy", [False, True], ids=["handshake", "tunnel"])
def test_it_is_left_at_once(silent: socket.socket, is_proxy: bool) -> None:
    place = "{}:{}".format(*silent.getsockname())
    variables = {"AZURE_STORAGE_KEY": "eA=="}
    if is_proxy:
        url = "https://acc.blob.core.windows.net/data"
        variables["HTTPS_PROXY"] = f"http://{place}"
    else:
        url = f"https://{place}/acc/data"
    store = AzureBlobStore(url, variables)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(store.get, "format.json")
        accepted, _ = silent.accept()
        with accepted:
            accepted.settimeout(LIMIT_S)
            assert accepted.recv(1)  # the first word of the handshake, or of CONNECT
            store.interrupt()
            with pytest.raises(Interrupted):
                asked.result(timeout=LIMIT_S)


def test_a_lookup_of_the_name_is_left_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = Event(), Event()

    def slow(*_: Any, **__: Any) -> list[Any]:
        begun.set()
        ended.wait(LIMIT_S)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    store = AzureBlobStore("https://acc.blob.core.windows.net/data", {"AZURE_STORAGE_KEY": "eA=="})
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(store.get, "format.json")
        assert begun.wait(LIMIT_S)
        store.interrupt()
        with pytest.raises(Interrupted):
            asked.result(timeout=LIMIT_S / 2)
        assert not ended.is_set()
        ended.set()
