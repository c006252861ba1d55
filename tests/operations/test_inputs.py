"""Inputs of a job file that are downloaded to this machine, from a real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from amlctl.azure_access import retry
from amlctl.core.events import Note, Warned
from amlctl.errors import NotFound, RightsError, ServiceUnavailable
from amlctl.operations.submit import inputs
from amlctl.operations.submit.submit import plan
from tests.support.bench import Bench

pytestmark = pytest.mark.filterwarnings("ignore::Warning")  # of the SDK's own imports


@dataclass
class Site:
    """Serves `content` at every path; `cut` says after how many bytes the next answers break off."""

    content: bytes = b"a,b\n1,2\n" * 5000
    etag: str = '"one"'
    status: int = 200
    cut: list[int] = field(default_factory=list)
    asked: list[tuple[str, str, int]] = field(default_factory=list)
    """Path, the range that was asked for, status of the answer."""
    url: str = ""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    found = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            start = int(wanted.removeprefix("bytes=").rstrip("-") or 0) if wanted else 0
            status = 304 if self.headers.get("If-None-Match") == found.etag else 206 if start else found.status
            found.asked.append((self.path, wanted, status))
            self.send_response(status)
            body = found.content[start:] if status < 300 else b""
            if status != 304:
                self.send_header("Content-Length", str(len(body)))
                self.send_header("ETag", found.etag)
            self.end_headers()
            if found.cut and body:
                body = body[: found.cut.pop(0)]
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """The test's own log has it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def job(bench: Bench, site: Site) -> str:
    bench.write(
        "jobs/get.yml",
        f"""\
        command: cat ${{{{inputs.table}}}} > outputs/table.csv
        inputs:
          table: {{type: uri_file, path: '{site.url}/data/table.csv'}}
        """,
    )
    return "jobs/get.yml"


def submitted(bench: Bench, job: str) -> bytes:
    record = bench.submit(job).record
    assert record.status == "Completed", record.error
    return (bench.project.outputs_dir / record.run / "table.csv").read_bytes()


def test_a_file_is_downloaded_once(bench: Bench, site: Site, job: str) -> None:
    assert submitted(bench, job) == site.content
    assert submitted(bench, job) == site.content
    assert [status for _, _, status in site.asked] == [200, 304]
    assert len([event for event in bench.reported(Note) if event.message.startswith("downloaded ")]) == 1
    site.content, site.etag = b"changed", '"two"'
    assert submitted(bench, job) == b"changed"
    assert site.asked[-1][2] == 200


@pytest.mark.parametrize("note", ["[]", '{"etag": 7, "files": [1]}', "{"])
def test_a_damaged_note_costs_a_download(bench: Bench, site: Site, job: str, note: str) -> None:
    assert submitted(bench, job) == site.content
    [path] = bench.project.inputs_dir.glob("*.json")
    path.write_text(note)
    assert submitted(bench, job) == site.content
    assert site.asked[-1][2] == 200


def test_it_is_part_of_the_run(bench: Bench, site: Site, job: str) -> None:
    record = bench.submit(job).record
    (dataset,) = record.spec.datasets
    assert dataset.startswith("@inputs/")
    assert dataset.endswith("/table.csv")
    assert record.spec.inputs["table"] == {"dataset": dataset, "type": "uri_file", "from": f"{site.url}/data/table.csv"}
    site.status = 500
    again = bench.submit(from_run=record.run, environment="current").record
    assert (again.status, again.spec.datasets) == ("Completed", record.spec.datasets)


def test_a_broken_download_is_resumed(bench: Bench, site: Site, job: str) -> None:
    site.cut = [1000, 500]
    assert submitted(bench, job) == site.content
    assert [wanted for _, wanted, _ in site.asked] == ["", "bytes=1000-", "bytes=1500-"]


def test_half_a_file_is_never_used(bench: Bench, site: Site, job: str) -> None:
    site.cut = [1] * 20
    with pytest.raises(ServiceUnavailable, match=r"^http.* cannot be downloaded: ") as caught:
        bench.submit(job)
    assert site.url in caught.value.message
    assert not [path for path in bench.project.inputs_dir.rglob("*") if path.is_file()]


def test_without_a_network_the_earlier_download_is_used(bench: Bench, site: Site, job: str) -> None:
    assert submitted(bench, job) == site.content
    site.status, site.etag = 503, '"two"'
    assert submitted(bench, job) == site.content
    assert [event for event in bench.reported(Warned) if "the earlier download is used" in event.message]


@pytest.mark.parametrize(("status", "kind", "place"), [(404, NotFound, "jobs/get.yml:3: "), (403, RightsError, "")])
def test_an_unavailable_package_is_reported_with_its_line(
    bench: Bench, site: Site, job: str, status: int, kind: type[Exception], place: str
) -> None:
    site.status = status
    with pytest.raises(kind, match=f"status {status}") as caught:
        bench.submit(job)
    assert str(caught.value).startswith(place)
    assert len(site.asked) == 1


def test_a_dry_run_downloads_nothing(bench: Bench, site: Site, job: str) -> None:
    shown = plan(bench, bench.request(job)).to_json()
    assert list(shown["datasets"].values()) == [{"from": f"{site.url}/data/table.csv"}]
    assert not site.asked


def test_a_signature_is_in_no_record(bench: Bench, site: Site) -> None:
    bench.write(
        "jobs/sas.yml",
        f"""\
        command: cat ${{{{inputs.table}}}} > outputs/table.csv
        inputs:
          table: {{type: uri_file, path: '{site.url}/t.csv?sv=2024&sig=s3cretSignature%3D'}}
        """,
    )
    assert submitted(bench, "jobs/sas.yml") == site.content
    assert "sig=s3cretSignature%3D" in site.asked[0][0]
    for path in bench.project.state_dir.rglob("*"):
        if path.is_file():
            assert b"s3cretSignature" not in path.read_bytes(), path
    record = bench.workspace.list_runs()[0]
    assert bench.submit(from_run=record.run, environment="current").record.status == "Completed"


def test_room_is_made_for_new_downloads(bench: Bench, site: Site, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_LIMIT_BYTES", len(site.content) + 10)
    assert submitted(bench, job) == site.content
    other = bench.write("jobs/other.yml", (bench.project.root / job).read_text().replace("table.csv'", "other.csv'"))
    assert submitted(bench, str(other)) == site.content
    assert [path.name for path in bench.project.inputs_dir.rglob("*.csv")] == ["other.csv"]
    assert submitted(bench, job) == site.content
