"""What a user sees while a request is repeated."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from tests.cli.conftest import Cli, StartTerminal
from tests.support.azurite import Azurite
from tests.support.fault_proxy import FaultProxy, Reply, Seen, fault_proxy

BUSY = Reply(503, {"x-ms-error-code": "ServerBusy", "x-ms-request-id": "1", "Retry-After": "3"})


@pytest.fixture
def proxy(azurite: Azurite) -> Iterator[FaultProxy]:
    with fault_proxy(azurite.url) as running:
        yield running


def times(number: int, reply: Reply) -> Callable[[Seen], Reply | None]:
    left = [number]

    def act(seen: Seen) -> Reply | None:
        left[0] -= 1
        return reply if left[0] >= 0 else None

    return act


def blob_project(cli: Cli, url: str, container: str) -> None:
    cli.write(".amlctl.toml", f'[workspaces.local]\ncompute = "local"\nstore = "{url}/{container}"\n')
    cli.write("data_blobs/raw/d/file", "bytes")


def test_it_is_a_line_now_and_then_without_a_terminal(project: Cli, azurite: Azurite, proxy: FaultProxy) -> None:
    blob_project(project, proxy.url, azurite.new_container())
    proxy.act = times(2, BUSY)
    answer = project("sync", "raw/d", variables={"AZURE_STORAGE_KEY": azurite.key})
    assert answer.code == 0
    lines = [line for line in answer.err.splitlines() if line.startswith("blob store: ")]
    assert lines[0] == "blob store: 503 server busy, retry 1 of 5 in 3 s"
    assert len(lines) <= 2


def test_quiet_is_quiet(project: Cli, azurite: Azurite, proxy: FaultProxy) -> None:
    blob_project(project, proxy.url, azurite.new_container())
    proxy.act = times(1, BUSY)
    answer = project("sync", "raw/d", "--quiet", variables={"AZURE_STORAGE_KEY": azurite.key})
    assert (answer.code, answer.err) == (0, "")


def test_it_is_in_the_live_region_of_a_terminal(
    project: Cli, azurite: Azurite, proxy: FaultProxy, terminal: StartTerminal
) -> None:
    blob_project(project, proxy.url, azurite.new_container())
    proxy.act = times(1, BUSY)
    screen = terminal(
        project.command("sync", "raw/d"), project.cwd, columns=100, variables={"AZURE_STORAGE_KEY": azurite.key}
    )
    screen.wait_for("blob store: 503 server busy, retry 1 of 5 in")
    assert screen.finish() == 0
    assert re.search(r"retry 1 of 5 in [12] s", screen.text)  # it counts down
