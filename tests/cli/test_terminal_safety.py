"""Names, records and logs come from outside: whatever is in them, the terminal only shows it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from amlctl.core.run import RunRecord
from amlctl.core.store_keys import log_key, outputs_prefix
from amlctl.localfs.project import Project
from amlctl.runs.records import save_local_record, save_record
from amlctl.stores.directory import DirectoryStore
from tests.cli.conftest import Cli, StartTerminal
from tests.support.runs import run_record

HOSTILE = "\x1b]0;pwned\x07\x1b[2J\x9b5A\u202etxt\x1b]52;c;cm0gLXJm\x07"
LOG = f"\x1b[32mgreen\x1b[0m {HOSTILE}\n10%\r100%\nend"
COLOR = re.compile(r"\x1b\[[0-9;]*m")
RUN, OTHER = "a-20260101-120000-0001", "b-20260101-120500-0002"


def hostile_record(run: str) -> RunRecord:
    at = "2026-01-01T12:00:00.000+00:00"
    texts: dict[str, Any] = dict.fromkeys(
        ("name", "experiment", "description", "environment", "compute", "user", "host", "waits_for", "outputs"),
        f"{run}{HOSTILE}",
    )
    return run_record(
        run,
        f"pipeline/{HOSTILE}.py",
        status="Failed",
        arguments=[HOSTILE],
        config=f"{HOSTILE}.json",
        config_content={HOSTILE: {"a": HOSTILE}},
        datasets={HOSTILE: "00ff"},
        manifests={HOSTILE: "datasets/x/1.gz"},
        produces=[HOSTILE],
        published={HOSTILE: "00ff"},
        variables={f"A{HOSTILE}": run + HOSTILE},
        tags={HOSTILE: run + HOSTILE},
        git={"commit": HOSTILE, "branch": HOSTILE, "dirty": True},
        command_line=[HOSTILE],
        created_at=at,
        times={"Running": at, "Failed": at},
        exit_code=1,
        error={"kind": "script", "message": HOSTILE, "hint": HOSTILE},
        studio_url=f"https://x/{HOSTILE}",
        **texts,
    )


@pytest.fixture
def hostile(project: Cli) -> Cli:
    """A project with two ended runs, every text of which speaks to the terminal."""
    store = DirectoryStore(project.cwd / ".amlctl/store")
    state = Project(project.cwd).ensure_state_dir()
    for run in (RUN, OTHER):
        record = hostile_record(run)
        save_local_record(state, record)
        save_record(store, record)
        store.put(log_key(run, "std_log.txt"), LOG.encode())
        store.put(outputs_prefix(run) + "metrics.json", json.dumps({HOSTILE: run + HOSTILE}).encode())
    return project


def assert_only_text(written: str) -> None:
    rest = COLOR.sub("", written)
    found = sorted({character for character in rest if not character.isprintable()} - {"\n", "\r", "\t"})
    assert not found, (found, written)


COMMANDS = (
    *(("runs",), ("runs", "show", RUN), ("runs", "compare", RUN, OTHER), ("runs", "open", RUN), ("logs", RUN)),
    *(("logs", RUN, "-f"), ("submit", "--from", RUN), ("cancel", RUN), ("fetch", RUN), ("logs", HOSTILE)),
    *(
        ("status", HOSTILE),
        ("why", f"pipeline/{HOSTILE}"),
        ("runs", "list", "--experiment", HOSTILE),
        ("sync", HOSTILE),
    ),
    *(("submit", "x.py", "--tag", HOSTILE), ("sync", "data_blobs", "--store", f"https://{HOSTILE}/x"), ("-v", HOSTILE)),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words[:2]).encode("ascii", "ignore").decode())
def test_no_command_passes_it_on(hostile: Cli, terminal: StartTerminal, command: tuple[str, ...]) -> None:
    opened = command[:2] == ("runs", "open")  # on a terminal it would open a browser
    if not opened:
        screen = terminal(hostile.command(*command), hostile.cwd, columns=200)
        screen.finish()
        assert_only_text(screen.text)
    answer = hostile(*command)
    assert_only_text(answer.out + answer.err)
    assert "\x1b" not in COLOR.sub("", answer.out)


def test_json_is_exact_and_harmless(hostile: Cli) -> None:
    for command in (("runs",), ("runs", "show", RUN), ("runs", "compare", RUN, OTHER)):
        assert_only_text(hostile(*command, "--json").out)
    document = hostile.json("runs", "show", RUN)
    expected = hostile_record(RUN).to_json()
    assert {name: document[name] for name in expected} == json.loads(json.dumps(expected))
    assert hostile.json("logs", RUN)["log"].startswith("\x1b[32mgreen")


def test_a_log_keeps_its_colors_and_a_pipe_gets_the_same(hostile: Cli, terminal: StartTerminal) -> None:
    shown = "\x1b[32mgreen\x1b[0m \\u202etxt"
    screen = terminal(hostile.command("logs", RUN), hostile.cwd)
    assert screen.finish() == 0
    assert shown in screen.text
    assert hostile("logs", RUN).out == f"{shown}\n100%\nend\n"
    assert "\x1b[32mgreen" in hostile("logs", RUN, "--raw").out


@pytest.mark.parametrize("options", [(), ("-f",)])
def test_raw_passes_everything(hostile: Cli, terminal: StartTerminal, options: tuple[str, ...]) -> None:
    screen = terminal(hostile.command("logs", RUN, "--raw", *options), hostile.cwd)
    screen.finish()
    assert HOSTILE in screen.text


def test_a_color_that_a_log_leaves_on_ends_with_it(hostile: Cli, terminal: StartTerminal) -> None:
    store = DirectoryStore(hostile.cwd / ".amlctl/store")
    store.put(log_key(RUN, "std_log.txt"), b"\x1b[31mred without end", replace=True)
    screen = terminal(hostile.command("logs", RUN), hostile.cwd)
    screen.finish()
    assert screen.text.rstrip().endswith("\x1b[0m")


def test_file_names_are_text(project: Cli) -> None:
    name = "\x1b]0;x\x07\u202e.txt"
    (project.cwd / "data_blobs" / "working" / name).parent.mkdir(parents=True, exist_ok=True)
    (project.cwd / "data_blobs" / "working" / name).write_bytes(b"x")
    for command in (("status",), ("sync", "data_blobs/working"), ("why", f"data_blobs/working/{name}")):
        answer = project(*command)
        assert_only_text(answer.out + answer.err)


def test_a_secret_in_an_address_is_in_no_message(project: Cli) -> None:
    for url in (
        "https://user:CANARY@host/x",
        "https://a.blob.core.windows.net/c?sv=1&sig=CANARY",
        "ftp://u:CANARY@h/x",
    ):
        answer = project("sync", "data_blobs", "--store", url)
        assert answer.code != 0
        assert "CANARY" not in answer.out + answer.err
        assert "CANARY" not in project("sync", "data_blobs", "--store", url, "--json").out
