"""Ctrl-C while a connection is being made to a host that takes it, and then says nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from amlctl.errors import Interrupted
from amlctl.stores.azure_blob.store import open_blob_store

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
    store = open_blob_store(url, variables)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(store.get, "format.json")
        accepted, _ = silent.accept()
        with accepted:
            accepted.settimeout(LIMIT_S)
            assert accepted.recv(1)  # the first word of the handshake, or of CONNECT
            store.interrupt()
            with pytest.raises(Interrupted):
                asked.result(timeout=LIMIT_S)
