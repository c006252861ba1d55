"""Run records damaged in every way: no command fails for want of words, and no other run is touched.

`AMLCTL_TEST_EXAMPLES` sets how many damages are tried (default: few enough for every day).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from amlctl.cli.app import run as run_command
from amlctl.core.run import RunRecord
from amlctl.core.run_schema import RULES, wrong_field
from amlctl.core.store_keys import log_key, record_key
from amlctl.localfs.project import Project
from amlctl.runs.records import save_local_record, save_record
from amlctl.stores.directory import DirectoryStore
from tests.support.runs import run_record

FAULT = 70
DAMAGED, OTHER = "a-20260101-120000-0001", "b-20260101-120500-0002"
COMMANDS = (
    *(("runs",), ("runs", "--json"), ("runs", "show", DAMAGED), ("runs", "show", DAMAGED, "--json")),
    *(("runs", "compare", DAMAGED, OTHER), ("runs", "open", DAMAGED), ("logs", DAMAGED), ("fetch", DAMAGED)),
    *(("submit", "--from", DAMAGED, "--dry-run"), ("cancel", DAMAGED), ("store", "gc"), ("logs", "@2")),
)
FOR_THE_OTHER = (("runs", "show", OTHER, "--json"), ("logs", OTHER), ("logs", "@last"))


class Scene:
    """A project with two runs that have ended, as files, and the commands in this process."""

    def __init__(self, root: Path) -> None:
        self.project = Project(root)
        self.store = DirectoryStore(root / "store")
        root.mkdir()
        root.joinpath(".amlctl.toml").write_text('[workspaces.local]\ncompute = "local"\nstore = "store"\n')
        self.project.pipeline_dir.mkdir()
        self.project.ensure_state_dir()
        for run, minute in ((DAMAGED, 0), (OTHER, 5)):
            record = _record(run, minute)
            save_record(self.store, record)
            save_local_record(self.project.state_dir, record)
            self.store.put(log_key(run, "std_log.txt"), f"log of {run}\n".encode())
        self.local = self.project.state_dir / "runs" / DAMAGED / "record.json"
        self.stored = root / "store" / record_key(DAMAGED)
        self.good = self.local.read_bytes()

    def run(self, *arguments: str) -> tuple[int, bytes]:
        """Exit code, and everything that was written."""
        raw = io.BytesIO()
        text = io.TextIOWrapper(raw, "utf-8", write_through=True)
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            code = run_command([*arguments, "--project", str(self.project.root)])
        return code, raw.getvalue()

    def restore(self) -> None:
        self.local.parent.mkdir(exist_ok=True)
        self.local.write_bytes(self.good)
        self.stored.unlink(missing_ok=True)
        self.stored.write_bytes(self.good)


def _record(run: str, minute: int) -> RunRecord:
    at = f"2026-01-01T12:{minute:02}:00.000+00:00"
    return run_record(
        run,
        "pipeline/a.py",
        name="a",
        status="Completed",
        experiment="x",
        arguments=["--lr", "0.1"],
        config="c.json",
        config_content={"layers": [1, 2, {"a": "b"}], "rate": 0.5},
        code="c0de",
        datasets={"working/x": "00ff"},
        manifests={"working/x": "datasets/working/x/00ff-11.gz"},
        published={"working/y": "00aa"},
        environment="current",
        variables={"A": "b", "TOKEN": None},
        tags={"team": "vision"},
        git={"commit": "0" * 40, "branch": None, "dirty": False},
        command_line=["amlctl", "submit", "a.py"],
        created_at=at,
        times={"NotStarted": at, "Running": at, "Completed": at},
        exit_code=0,
        outputs=f"outputs/{run}",
    )


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    made = Scene(tmp_path_factory.mktemp("damaged") / "project")
    limit = sys.getrecursionlimit()
    yield made
    assert sys.getrecursionlimit() == limit


LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**30, -1, 0, 2**63, 1e308, float("inf"), float("nan")]),
    st.text(max_size=8),
    st.sampled_from(
        ["\x1b]0;x\x07", "\ud800", "\0", "../../x", "/etc/passwd", "a" * 5000, "@last", OTHER, "Complfted"]
    ),
    st.sampled_from(["2026-13-01T00:00:00+00:00", "2026-01-01T00:00:00", "0001-01-01T00:00:00+00:00", "9999-12-31"]),
)
VALUES = st.recursive(
    LEAVES, lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=4), below, max_size=3)
)
DEEP = st.integers(2, 5000).map(lambda depth: "[" * depth + "]" * depth)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A record that was hurt: by type, by name, by a few bits, by depth, by a cut, or all of it."""
    document = json.loads(_record(DAMAGED, 0).to_bytes())
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(sorted(document)))
        match draw(st.sampled_from(["drop", "rename", "retype", "inside"])):
            case "drop":
                del document[name]
            case "rename":
                document[name[:-1] + "X"] = document.pop(name)
            case "retype":
                document[name] = draw(VALUES)
            case "inside" if isinstance(document[name], dict) and document[name]:
                key = draw(st.sampled_from(sorted(document[name])))
                document[name][draw(st.sampled_from([key, "", "../x", "\x1b[2J"]))] = draw(VALUES)
            case "inside" if isinstance(document[name], list):
                document[name].append(draw(VALUES))
    data = bytearray(json.dumps(document, indent=2).encode())
    if draw(st.integers(0, 9)) == 0:
        field = draw(st.sampled_from(["config_content", "tags", "arguments", "sync"]))
        data = bytearray(json.dumps(document).replace(f'"{field}": ', f'"{field}": {draw(DEEP)}, "x": ').encode())
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
    if draw(st.integers(0, 9)) == 0:
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data)


@settings(
    max_examples=int(os.environ.get("AMLCTL_TEST_EXAMPLES", "25")),
)
@given(data=damaged(), place=st.sampled_from(["local", "store", "both"]))
@example(data=b"", place="both")
@example(data=b"null", place="local")
@example(data=b"[" * 100_000, place="both")
@example(data=b'{"run": ' + b"9" * 10_000 + b"}", place="local")
def test_no_command_fails_and_no_other_run_is_touched(scene: Scene, data: bytes, place: str) -> None:
    scene.restore()
    if place != "store":
        scene.local.write_bytes(data)
    if place != "local":
        scene.stored.unlink()
        scene.stored.write_bytes(data)
    stored = scene.stored.read_bytes()
    others = _others(scene)
    for arguments in COMMANDS:
        code, written = scene.run(*arguments)
        assert code != FAULT, (arguments, written.decode())
        assert b"\x1b" not in written, (arguments, written)
    assert scene.stored.read_bytes() == stored, "the store's record was rewritten"
    for arguments in FOR_THE_OTHER:
        code, written = scene.run(*arguments)
        assert code == 0, (arguments, written.decode())
        assert OTHER.encode() in written
    assert _others(scene) == others
    if place == "local" and wrong_field_of(data):
        assert json.loads(scene.local.read_bytes()) == json.loads(scene.good), "it was not taken from the store"


def wrong_field_of(data: bytes) -> str:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return "JSON"
    return wrong_field(document, DAMAGED) if isinstance(document, dict) else "JSON"


def _others(scene: Scene) -> Sequence[bytes]:
    files = [scene.project.state_dir / "runs" / OTHER / "record.json", scene.project.root / "store" / record_key(OTHER)]
    return [file.read_bytes() for file in files]


def test_every_field_has_a_rule() -> None:
    assert set(RULES) == set(_record(DAMAGED, 0).to_json())
    assert wrong_field(json.loads(_record(DAMAGED, 0).to_bytes()), DAMAGED) == ""
    assert "another run" in wrong_field(_record(DAMAGED, 0).to_json(), OTHER)


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_record_that_lacks_a_field_it_always_had_is_damaged(name: str) -> None:
    document = _record(DAMAGED, 0).to_json()
    del document[name]
    later = {"waits_for", "command", "inputs", "named_outputs", "output_places", "description", "heads", "sync"}
    later |= {"distribution", "processes", "instances", "node", "config_file", "children", "job_type", "services"}
    later |= {"metrics", "phases", "is_config_positional", "sweep", "parent", "combination", "resources"}
    assert bool(wrong_field(document)) == (name not in later)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("status", "Complfted"), ("status", 7), ("run", "../x"), ("script", "/etc/passwd"), ("script", "../x.py")),
        *(("phases", [{"name": "run"}]), ("phases", [{"name": "run", "at": "soon"}]), ("phases", ["run"])),
        *(("children", [{}]), ("children", [{"run": "a-1", "status": "Running"}]), ("children", ["a-1"])),
        *(("times", {"Running": 5}), ("times", []), ("times", {"Later": "2026-01-01T00:00:00+00:00"})),
        *(("times", {"Running": "2026-01-01T00:00:00"}), ("created_at", "yesterday"), ("created_at", 5)),
        ("created_at", "2026-01-01T00:00:00.\u0661\u0662\u0663+00:00"),
        *(("workspace", ["local"]), ("tags", {"a": 1}), ("variables", {"a=b": "c"}), ("variables", {"": "c"})),
        *(
            ("manifests", {"x": "runs/y/record.json"}),
            ("manifests", {"x": "datasets/../x"}),
            ("datasets", {"../x": "0"}),
        ),
        *(
            ("exit_code", True),
            ("exit_code", 10**30),
            ("processes", 0),
            ("instances", 10**9),
            ("timeout_s", float("nan")),
        ),
        *(
            ("studio_url", "file:///etc/passwd"),
            ("studio_url", "javascript:x"),
            ("sync", {"ignore_files": {"../x": ""}}),
        ),
        *(("inputs", {"a": {"dataset": "../../x"}}), ("named_outputs", {"../x": "uri_file"}), ("config", "x/..")),
        *(("code", "../x"), ("mode", "copy"), ("distribution", "slurm"), ("arguments", ["\ud800"]), ("arguments", "x")),
    ],
)
def test_what_a_record_may_not_hold(name: str, value: Any) -> None:
    assert name in wrong_field({**_record(DAMAGED, 0).to_json(), name: value})
