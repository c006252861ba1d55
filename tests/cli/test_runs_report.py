"""The page of `runs report`: whole, bounded, escaped, and what it does in a browser (where there is one)."""

from __future__ import annotations

import json
import os
import re
import struct
import zlib
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from amlctl.core.resources import Resources, Sample
from amlctl.core.store_keys import log_key
from amlctl.localfs.project import Project
from amlctl.runs.records import save_resources
from amlctl.stores.directory import DirectoryStore
from tests.cli.conftest import Cli
from tests.cli.test_runs_list import add
from tests.cli.test_runs_plot import keep_outputs
from tests.support.browser import Browser, find_browser

EVIL = "</pre></td><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">'\"&<b>"
_VOID = {"meta", "input", "img", "br", "rect", "line", "circle", "polyline"}


class StrictParser(HTMLParser):
    """Fails for a tag without its end, and collects what a browser would load or run."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(path: Path) -> StrictParser:
    """Asserts that the page is well-formed, loads nothing, and has our script only."""
    parser = StrictParser()
    parser.feed(path.read_text(encoding="utf-8"))
    parser.close()
    assert parser.open == []
    for tag, attributes in parser.tags:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcset", "action")]
        for name in ("src", "href", "data", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:image/"[: len("data:")]), (tag, attributes)
    counted = [tag for tag, _ in parser.tags if tag in ("script", "style", "link", "iframe", "object", "base", "form")]
    assert sorted(counted) == ["script", "style"]
    return parser


def png(width: int = 4) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes([200, 30, 30]) * width for _ in range(width))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, width, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def finished(project: Cli, folder: Path, number: int, files: Mapping[str, bytes], log: str, **fields: Any) -> str:
    """A run with outputs and a log, as a finished one leaves them in the store."""
    run = add(project, number, fields.pop("metrics", {}), **fields)
    outputs = folder / run
    for path, data in files.items():
        (outputs / path).parent.mkdir(parents=True, exist_ok=True)
        (outputs / path).write_bytes(data)
    outputs.mkdir(exist_ok=True)
    keep_outputs(project, run, outputs)
    store = DirectoryStore(Project(project.cwd).state_dir / "store")
    store.put(log_key(run, "std_log.txt"), log.encode("utf-8", "surrogateescape"))
    return run


@pytest.fixture
def reported(project: Cli, tmp_path: Path) -> Cli:
    Project(project.cwd).ensure_state_dir()
    for number in (1, 2):
        lines = [{"step": step, "loss": number / (step + 1), EVIL: step} for step in range(2000)]
        lines[50]["loss"] = float("nan")
        files = {
            "metrics.jsonl": "".join(json.dumps(line) + "\n" for line in lines).encode(),
            "graphs/a.png": png(),
            'graphs/"onload="x.svg': b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
            "graphs/not-a-picture.png": b"<script>",
            "model.bin": bytes(1000),
        }
        finished(
            project,
            tmp_path,
            number,
            files,
            "".join(f"line {line}\n" for line in range(2500)) + f"{EVIL}\nlast \x1b[31m\udc80 line",
            metrics={"loss": number, EVIL: 1},
            config="c.json",
            config_content={"lr": number, EVIL: EVIL},
            environment=f"e{number}",
            environment_content=f"# {EVIL}\n- {EVIL}=={number}",
            command_line=["amlctl", "submit", EVIL],
            description=EVIL,
            status="Failed",
            error={"kind": "script", "message": EVIL},
            tags={EVIL: EVIL},
            user="ada",
        )
    return project


def test_the_page_of_one_run_is_whole_and_escaped(reported: Cli) -> None:
    answer = reported("runs", "report", "run-001")
    assert answer.code == 0, answer.err
    path = reported.cwd / "outputs/run-001-report.html"
    assert answer.out.startswith("outputs/run-001-report.html  (")
    page = parsed(path)
    assert page.text.count(EVIL) > 8
    assert "amlctl submit --from run-001" in page.text
    assert "the last 2,000 lines; earlier ones: amlctl logs run-001" in page.text
    assert "line 2499" in page.text
    assert "line 400\n" not in page.text
    pictures = [attributes["src"] or "" for tag, attributes in page.tags if tag == "img"]
    assert [source.partition(";")[0] for source in pictures] == ["data:image/svg+xml", "data:image/png"]
    curves = [attributes["points"] or "" for tag, attributes in page.tags if tag == "polyline"]
    assert len(curves) == 2  # metrics; no resources are recorded
    assert max(len(points.split()) for points in curves) <= 600


def test_several_runs_share_plots_and_a_comparison(reported: Cli, tmp_path: Path) -> None:
    path = tmp_path / "two.html"
    used = Resources()
    for sample in (Sample(60.0, 1.5, 10**9), Sample(125.0, 0.5, None), Sample(185.0, 2.0, 2 * 10**9)):
        used.add(sample)
    save_resources(DirectoryStore(Project(reported.cwd).state_dir / "store"), "run-002", used)
    document = reported.json("runs", "report", "run-001", "run-002", "-o", str(path))
    assert document == {"runs": ["run-001", "run-002"], "file": str(path), "bytes": path.stat().st_size}
    page = parsed(path)
    assert "Resources over time, in minutes" in page.text
    assert "Memory in GB" in page.text
    assert "GPU" not in page.text
    assert "What differs" in page.text
    assert "0.001 (+0.0005)" in page.text
    assert f"What changed in the environment of run-002+ {EVIL}==2\n− {EVIL}==1" in page.text
    classes = [attributes.get("class") for tag, attributes in page.tags if tag == "g"]
    assert (classes.count("curve c0"), classes.count("curve c1")) == (2, 4)
    assert reported("runs", "report", "-o", "new/folder/page.html").code == 0
    parsed(reported.cwd / "new/folder/page.html")
    wrong = reported("runs", "report", "-o", "pptdaml.yaml/page.html")
    assert (wrong.code, wrong.out) == (3, "")
    assert "pptdaml.yaml/page.html" in wrong.err


def test_a_page_is_bounded(project: Cli, tmp_path: Path) -> None:
    Project(project.cwd).ensure_state_dir()
    files = {f"{number:03}.png": png() for number in range(30)} | {"huge.png": png() + bytes(3 << 20)}
    finished(project, tmp_path, 1, files, "x" * (5 << 20))
    assert project("runs", "report").code == 0
    path = project.cwd / "outputs/run-001-report.html"
    assert path.stat().st_size < 100_000
    page = parsed(path)
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 24
    assert "7 more pictures not shown" in page.text


def test_what_the_page_is_written_to_stays_what_it_is(project: Cli, tmp_path: Path) -> None:
    add(project, 1, {})
    (tmp_path / "link.html").symlink_to("page.html")
    assert project("runs", "report", "run-001", "-o", str(tmp_path / "link.html")).code == 0
    assert (tmp_path / "link.html").is_symlink()
    assert parsed(tmp_path / "page.html").text
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    assert project("runs", "report", "run-001", "-o", str(tmp_path / "pipe")).code == 0
    assert os.read(reader, 20).startswith(b"<!DOCTYPE html>")
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
    answer = project("runs", "report", "run-001", "-o", str(tmp_path))
    assert (answer.code, f"{tmp_path} is a folder" in answer.err) == (2, True), answer


def test_a_run_without_anything_has_a_page(project: Cli) -> None:
    Project(project.cwd).ensure_state_dir()
    add(project, 1, {}, status="Running")
    answer = project("runs", "report", "run-001")
    assert answer.code == 0, answer.err
    parsed(project.cwd / "outputs/run-001-report.html")


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    return find_browser(tmp_path / "profile")


def test_the_page_works_in_a_browser(reported: Cli, browser: Browser, tmp_path: Path) -> None:
    assert reported("runs", "report", "run-001", "run-002", "-o", str(tmp_path / "page.html")).code == 0
    page = tmp_path / "page.html"
    assert "<title>2 runs</title>" in browser.dom(page)  # what others have written has not run
    text = page.read_text()
    probe = """
    const input = document.querySelector(".log input");
    input.value = "LINE 24"; input.dispatchEvent(new Event("input"));
    const shown = [...document.querySelector(".log pre").children].filter((line) => !line.hidden);
    addEventListener("load", () => { document.title = JSON.stringify({
      shown: shown.length, told: document.querySelector(".log output").textContent,
      marked: document.querySelectorAll(".log mark").length,
      pictures: [...document.images].map((one) => one.naturalWidth),
      loaded: performance.getEntriesByType("resource").filter((one) => !one.name.startsWith("data:")).length,
      back: getComputedStyle(document.body).backgroundColor,
      wide: document.documentElement.scrollWidth <= innerWidth,
    }); });"""
    text = re.sub(r"script-src 'sha256-[^']*'|script-src &#x27;sha256-.*?&#x27;", "script-src 'unsafe-inline'", text)
    probed = tmp_path / "probed.html"
    probed.write_text(text.replace("</body>", f"<script>{probe}</script></body>"))
    seen = [
        json.loads(found[1].replace("&quot;", '"'))
        for found in (re.search("<title>({.*?})</title>", browser.dom(probed, is_dark=dark)) for dark in (False, True))
        if found
    ]
    assert [one.pop("back") for one in seen] == ["rgb(255, 255, 255)", "rgb(20, 24, 29)"]
    assert seen[0] == seen[1]
    assert seen[0] == {
        "shown": 100,
        "told": "100 of 2000 lines",
        "marked": 100,
        "pictures": [9, 4, 9, 4],
        "loaded": 0,
        "wide": True,
    }
    assert browser.pdf(page, tmp_path / "page.pdf").startswith(b"%PDF-")
