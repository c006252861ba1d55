"""A token endpoint on loopback that the unmodified DefaultAzureCredential logs in at.

It is the managed identity endpoint of an App Service (api-version 2019-08-01): plain http is allowed there.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

TENANT = "11111111-2222-3333-4444-555555555555"
_HEADER = "loopback"


@dataclass
class IdentityEndpoint:
    """`variables` make DefaultAzureCredential ask here; `asked` has the resources that it asked for."""

    variables: dict[str, str]
    asked: list[str] = field(default_factory=list)


def token_for(resource: str, lifetime_s: int = 3600) -> str:
    """A JWT with the claims that services read; its signature is none."""
    now = int(time.time())
    claims = {
        "aud": resource.rstrip("/"),
        "iss": f"https://sts.windows.net/{TENANT}/",
        "tid": TENANT,
        "oid": "00000000-0000-0000-0000-000000000001",
        "iat": now - 60,
        "nbf": now - 60,
        "exp": now + lifetime_s,
    }
    parts = [json.dumps({"alg": "none", "typ": "JWT"}).encode(), json.dumps(claims).encode(), b"signature"]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


@contextmanager
def running_identity_endpoint() -> Iterator[IdentityEndpoint]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            if self.headers.get("X-IDENTITY-HEADER") != _HEADER or "resource" not in query:
                self.send_error(400)
                return
            resource = query["resource"][0]
            asked.append(resource)
            body = json.dumps(
                {
                    "access_token": token_for(resource),
                    "expires_on": str(int(time.time()) + 3600),
                    "resource": resource,
                    "token_type": "Bearer",
                }
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        variables = {
            "IDENTITY_ENDPOINT": f"http://127.0.0.1:{server.server_port}/token",
            "IDENTITY_HEADER": _HEADER,
        }
        yield IdentityEndpoint(variables, asked)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
