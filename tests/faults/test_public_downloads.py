"""Downloads of public addresses, and answers that are too large, over the transport of the Azure adapters."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from azure.core.pipeline import Pipeline
from azure.core.rest import HttpRequest

from amlctl.azure_access import retry
from amlctl.azure_access.download import download_file
from amlctl.azure_access.retry import Retries, RetryPolicy
from amlctl.azure_access.transport import Transport
from amlctl.core.events import null_sink
from amlctl.errors import AmlctlError, IntegrityError, RightsError, ServiceUnavailable, SettingsError

MIB = 1 << 20
DIRECT = {"NO_PROXY": "127.0.0.1"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/moved":
            self._answer(302, b"", location="/file?sig=CANARY")
        elif path == "/file":
            self._answer(200, b"content", etag='"1"')
        elif path == "/huge-error":
            self._answer(404, b"x" * (4 * MIB))
        elif path == "/huge":
            self._answer(200, b"x" * (4 * MIB))
        else:
            self._answer(int(path.removeprefix("/")), b"")

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Not on the screen."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.01)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _download(url: str, target: Path) -> str | None:
    return download_file(url, target, "", shown=url.partition("?")[0], variables=DIRECT, tell=null_sink)


def test_redirects_are_followed(site: str, tmp_path: Path) -> None:
    assert _download(f"{site}/moved", tmp_path / "file") == '"1"'
    assert (tmp_path / "file").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("path", "kind"), [("503", ServiceUnavailable), ("403", RightsError), ("file\ud800", SettingsError)]
)
def test_no_error_shows_the_query_of_an_address(site: str, tmp_path: Path, path: str, kind: type[AmlctlError]) -> None:
    url = f"{site}/{path}?sv=1&sig=CANARY x"
    with pytest.raises(kind) as caught:
        _download(url, tmp_path / "file")
    assert "CANARY" not in caught.value.message + caught.value.hint


@pytest.mark.parametrize("url", ["http:///file?sig=CANARY", "http://a b/?sig=CANARY", "http://x:99999/?sig=CANARY"])
def test_an_invalid_address_is_an_error_of_settings(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match="not a valid address") as caught:
        _download(url, tmp_path / "file")
    assert "CANARY" not in caught.value.message


def test_the_body_of_an_error_is_cut_off(site: str) -> None:
    transport = Transport("test", DIRECT)
    answer = transport.send(HttpRequest("GET", f"{site}/huge-error"))
    assert (answer.status_code, len(answer.content)) == (404, MIB)
    assert transport.send(HttpRequest("GET", f"{site}/file")).content == b"content"  # over another connection
    transport.close()


def test_an_answer_in_memory_has_a_limit(site: str) -> None:
    transport = Transport("test", DIRECT, max_bytes=3 * MIB)
    with pytest.raises(IntegrityError, match="more than 3 MiB"):
        transport.send(HttpRequest("GET", f"{site}/huge"))
    with pytest.raises(IntegrityError, match="more than 1 MiB"):
        transport.send(HttpRequest("GET", f"{site}/huge"), max_bytes=MIB)
    assert len(transport.send(HttpRequest("GET", f"{site}/huge"), sink=lambda read: len(read(8 * MIB))).content) == 0
    transport.close()


def test_it_is_known_whether_a_request_was_sent(site: str) -> None:
    transport = Transport("test", DIRECT)
    policy = RetryPolicy(Retries("test", 2, lambda _: None), transport, host_source="test", reason=lambda _: "")
    with pytest.raises(ServiceUnavailable) as caught:
        Pipeline(transport, [policy]).run(HttpRequest("PUT", "http://127.0.0.1:1/a", content=b"1"))
    assert not caught.value.was_sent
    transport.close()
