"""The tests' own Azurite: it answers, and it ends with the process that started it."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from azure.storage.blob import BlobServiceClient

from tests.support.azurite import Azurite

_STARTER = """\
import time
from tests.support.azurite import running_azurite

with running_azurite() as service:
    print(service.url, flush=True)
    time.sleep(300)
"""


def test_what_is_put_can_be_got(azurite: Azurite) -> None:
    with BlobServiceClient.from_connection_string(azurite.connection_string) as client:
        container = client.create_container(azurite.new_container())
        container.upload_blob("a/b.txt", b"abc")
        assert container.download_blob("a/b.txt").readall() == b"abc"


@pytest.mark.usefixtures("azurite_installed")
def test_the_service_ends_when_its_test_process_is_killed() -> None:
    root = Path(__file__).parents[3]
    with subprocess.Popen([sys.executable, "-c", _STARTER], cwd=root, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        address = urlsplit(starter.stdout.readline())
        assert _answers(address.port)
        starter.kill()
    deadline = time.monotonic() + 20
    while _answers(address.port):
        assert time.monotonic() < deadline, "the service still answers"
        time.sleep(0.05)


def _answers(port: int | None) -> bool:
    assert port
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True
