"""Runs for tests: a project folder, scripts, records, and waiting with a deadline instead of sleeping."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from amlctl.core.events import null_sink
from amlctl.core.run import RunRecord
from amlctl.core.run_schema import RULES
from amlctl.localfs.ignore import IgnoreRules
from amlctl.localfs.project import Project
from amlctl.runs.code import collect_code, send_code
from amlctl.stores.contract import Store

DEADLINE_S = 60.0
_NUMBERS = count(1)


def wait_until(condition: Callable[[], Any], what: str = "", *, deadline_s: float = DEADLINE_S) -> Any:
    """The first true value of `condition`; fails the test at the deadline."""
    limit = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < limit, f"{what or condition} did not come true within {deadline_s} s"
        time.sleep(0.01)


def make_project(root: Path) -> Project:
    root.mkdir(parents=True, exist_ok=True)
    (root / ".amlctl.toml").write_text("")
    project = Project(root)
    project.pipeline_dir.mkdir()
    return project


def write_script(project: Project, text: str, name: str = "script.py") -> str:
    """A script of the project; returns how a record names it."""
    path = project.pipeline_dir / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text))
    return path.relative_to(project.root).as_posix()


def run_record(run: str, script: str = "", **fields: Any) -> RunRecord:
    """A record from its fields and those of its spec, as they stand side by side in its JSON."""
    unknown = fields.keys() - RULES.keys()
    assert not unknown, unknown
    return RunRecord.from_fields({"run": run, "script": script, **fields})


def make_record(project: Project, store: Store, script: str, **fields: Any) -> RunRecord:
    """A record as a submit makes it: the code is in the store, nothing is started."""
    code = collect_code(project.pipeline_dir, IgnoreRules(project.root, ()))
    send_code(store, code, sink=null_sink)
    number = next(_NUMBERS)
    document = {
        "run": f"{Path(script).stem}-{number:04}",
        "script": script,
        "code": code.id,
        "environment": "current",
        "created_at": datetime.now(UTC).isoformat(),
        **fields,
    }
    return run_record(**document)
