"""`amlctl runs share`: links that need no account and end, and a zip file where the store is a folder."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from amlctl.errors import SettingsError, UsageError
from amlctl.stores.azure_blob.store import AzureBlobStore
from tests.cli.conftest import Cli
from tests.support.azurite import Azurite
from tests.support.fault_proxy import Reply, fault_proxy
from tests.support.runs import wait_until

SCRIPT = """
import os, pathlib
out = pathlib.Path(os.environ["AMLCTL_OUTPUTS_DIR"])
(out / "plots").mkdir()
(out / "plots/loss ü.png").write_bytes(b"\\x89PNG\\r\\n\\x1a\\n")
(out / "result.txt").write_text("42")
"""


def _submit(project: Cli, variables: dict[str, str] | None = None) -> str:
    project.write("pipeline/train.py", SCRIPT)
    answer = project("submit", "train.py", "--env-from", "current", "--json", variables=variables)
    assert answer.code == 0, answer
    return str(answer.document["run"])


def _sweep(project: Cli, variables: dict[str, str] | None = None) -> str:
    """Of two runs."""
    project.write("pipeline/train.py", SCRIPT)
    project.write("base.json", '{"rate": 1}')
    options = ("--config", "base.json", "--set", "rate=1,2", "--sweep", "--env-from", "current", "--json")
    answer = project("submit", "train.py", *options, variables=variables)
    assert answer.code == 0, answer
    return str(answer.document["run"])


@pytest.fixture
def remote(project: Cli, azurite: Azurite) -> dict[str, str]:
    url = f"{azurite.url}/{azurite.new_container()}"
    project.write(".amlctl.toml", f'[workspaces.local]\ncompute = "local"\nstore = "{url}"\n')
    return {"AZURE_STORAGE_KEY": azurite.key}


def _get(url: str) -> tuple[str, bytes]:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.headers["content-type"], answer.read()


def _is_refused(url: str) -> bool:
    try:
        _get(url)
    except urllib.error.HTTPError as error:
        return error.code in (403, 404)
    return False


def test_links_need_no_account_and_can_be_ended(project: Cli, remote: dict[str, str]) -> None:
    run = _submit(project, remote)
    answer = project("runs", "share", run, "--json", variables=remote)
    assert answer.code == 0, answer
    document = answer.document
    assert {"run", "expires_at", "links", "studio_url", "left_out"} == set(document)
    links = {one["file"]: one["url"] for one in document["links"]}
    assert set(links) == {"report.html", "plots/loss ü.png", "result.txt"}
    assert _get(links["result.txt"]) == ("text/plain", b"42")
    assert _get(links["plots/loss ü.png"])[0] == "image/png"
    media_type, page = _get(links["report.html"])
    assert media_type.startswith("text/html")
    assert run.encode() in page
    held = datetime.fromisoformat(document["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=6.9) < held <= timedelta(days=7)
    assert _is_refused(links["result.txt"].replace("result.txt", "other.txt"))
    assert _is_refused(links["result.txt"].partition("?")[0])
    ended = project("runs", "share", run, "--revoke", "--json", variables=remote)
    assert ended.document == {"run": run, "revoked": 3}
    assert all(map(_is_refused, links.values()))
    assert project("fetch", run, variables=remote).code == 0, "the outputs themselves stay"


def test_a_failed_copy_is_not_a_missing_right(project: Cli, azurite: Azurite) -> None:
    with fault_proxy(azurite.url) as proxy:
        url = f"{proxy.url}/{azurite.new_container()}"
        project.write(".amlctl.toml", f'[workspaces.local]\ncompute = "local"\nstore = "{url}"\n')
        variables = {"AZURE_STORAGE_KEY": azurite.key}
        run = _submit(project, variables)
        proxy.act = lambda seen: Reply(409) if seen.verb == "PUT" and "/shared/" in seen.path else None
        answer = project("runs", "share", run, variables=variables)
    assert (answer.code, "is not one of Blob Storage (409" in answer.err) == (6, True), answer


def test_only_what_is_named_and_only_for_so_long(project: Cli, remote: dict[str, str]) -> None:
    run = _submit(project, remote)
    answer = project("runs", "share", run, "plots/*.png", "--expires", "1h", variables=remote)
    (url,) = [line.strip() for line in answer.out.splitlines() if "http" in line]
    assert "sig=" in url, "a link is shown whole"
    until = datetime.fromisoformat(parse_qs(urlsplit(url).query)["se"][0])
    assert timedelta(minutes=55) < until - datetime.now(UTC) <= timedelta(hours=1)
    assert parse_qs(urlsplit(url).query)["sp"] == ["r"]
    assert _get(url)[1].startswith(b"\x89PNG")
    signature = parse_qs(urlsplit(url).query)["sig"][0]
    written = [path for path in (project.cwd / ".amlctl").rglob("*") if path.is_file()]
    assert not [path for path in written if signature.encode() in path.read_bytes()]
    assert project("runs", "share", run, "nothing*", variables=remote).code == 4
    assert project("runs", "share", run, "--expires", "soon", variables=remote).code == 2


def test_ended_shares_are_removed_with_the_next_one(project: Cli, remote: dict[str, str]) -> None:
    run = _submit(project, remote)
    project("runs", "share", run, "result.txt", "--expires", "1s", variables=remote)
    url = (project.cwd / ".amlctl.toml").read_text().split('"')[3]
    store = AzureBlobStore(url, remote)
    try:
        old = {entry.key for entry in store.list(f"runs/{run}/shared/")}
        (until,) = {int(key.split("/")[3].split("-")[0]) for key in old}
        wait_until(lambda: time.time() > until)
        assert project("runs", "share", run, "result.txt", variables=remote).code == 0
        assert not old & {entry.key for entry in store.list(f"runs/{run}/shared/")}
    finally:
        store.close()


def test_a_sweep_shares_the_outputs_of_all_runs(project: Cli, remote: dict[str, str]) -> None:
    sweep = _sweep(project, remote)
    document = project("runs", "share", sweep, "--json", variables=remote).document
    links = {one["file"]: one["url"] for one in document["links"]}
    assert {"report.html", f"{sweep}_0/result.txt", f"{sweep}_1/result.txt"} < set(links)
    assert _get(links[f"{sweep}_1/result.txt"])[1] == b"42"
    assert f"{sweep}_1".encode() in _get(links["report.html"])[1]


def test_a_sas_token_cannot_sign(azurite: Azurite) -> None:
    url = f"{azurite.url}/{azurite.new_container()}"
    store = AzureBlobStore(url, {"AZURE_STORAGE_SAS_TOKEN": "sv=2024-01-01&sig=abc"})
    try:
        with pytest.raises(SettingsError, match="cannot sign"):
            store.links(datetime.now(UTC))
    finally:
        store.close()


def test_a_login_signs_for_a_week_at_most() -> None:
    store = AzureBlobStore("https://account.blob.core.windows.net/container", {})
    try:
        with pytest.raises(UsageError, match="7 days"):
            store.links(datetime.now(UTC) + timedelta(days=8))
    finally:
        store.close()


def test_a_folder_store_gives_a_zip(project: Cli) -> None:
    run = _submit(project)
    document = project.json("runs", "share", run)
    assert {"run", "file", "bytes", "files", "studio_url"} == set(document)
    with zipfile.ZipFile(document["file"]) as archive:
        assert sorted(archive.namelist()) == [
            f"{run}/outputs/plots/loss ü.png",
            f"{run}/outputs/result.txt",
            f"{run}/report.html",
        ]
        assert archive.read(f"{run}/outputs/result.txt") == b"42"
    assert project("runs", "share", run, "result.txt").out.startswith(f"outputs/{run}-share.zip  (1 file")
    assert not [path for path in Path(document["file"]).parent.iterdir() if "tmp" in path.name]
    assert project("runs", "share", run, "--revoke").code == 2


def test_a_zip_takes_every_time_and_name(project: Cli) -> None:
    project.write(
        "pipeline/odd.py", "import os\nopen(os.fsencode(os.environ['AMLCTL_OUTPUTS_DIR']) + b'/\\xff.txt', 'w')\n"
    )
    run = project.json("submit", "odd.py", "--env-from", "current")["run"]
    for stored in (project.cwd / f".amlctl/store/runs/{run}/outputs").iterdir():
        os.utime(stored, (0, 0))
    with zipfile.ZipFile(project.json("runs", "share", run)["file"]) as archive:
        assert f"{run}/outputs/\ufffd.txt" in archive.namelist()


def test_a_zip_of_a_sweep_has_a_folder_for_each_run(project: Cli) -> None:
    sweep = _sweep(project)
    document = project.json("runs", "share", sweep, "*.txt")
    with zipfile.ZipFile(document["file"]) as archive:
        assert archive.namelist() == [f"{sweep}/outputs/{sweep}_{number}/result.txt" for number in (0, 1)]
    assert project.json("runs", "share", sweep)["files"] == 5
