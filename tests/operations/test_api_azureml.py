"""`from amlctl import sync, submit, …` on the loopback Azure ML, in a process of its own as a notebook has one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.operations.test_azureml import project, service
from tests.support.azureml_service import AzureMLService

__all__ = ["project", "service"]

NOTEBOOK = """
import asyncio, json
from amlctl import fetch, list_runs, logs, submit, sync
from amlctl.core.events import LogText

async def cell():
    texts = []
    snapshot = sync("data_blobs/raw").snapshot
    sink = lambda event: texts.append(event.text) if isinstance(event, LogText) else None
    result = await asyncio.to_thread(submit, "train.py", datasets=["raw"], env_from="current", sink=sink)
    return snapshot, result, "".join(texts)

snapshot, result, text = asyncio.run(cell())
record = result.record
print(json.dumps({
    "status": record.status, "is_same_data": record.spec.datasets == {"raw": snapshot}, "studio": record.studio_url,
    "log": text, "whole_log": logs(record.run), "files": fetch("@last", to="again").files,
    "is_listed": [one.run for one in list_runs()] == [record.run],
}))
"""


def test_a_run_from_a_notebook(project: Path, service: AzureMLService) -> None:
    given = {name: value for name, value in service.stock_variables.items() if "STORAGE" not in name}
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK],
        cwd=project,
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert (found["status"], found["is_same_data"], found["is_listed"]) == ("Completed", True, True)
    assert "text: hello" in found["log"]
    assert "text: hello" in found["whole_log"]
    assert found["files"] == 1
    assert found["studio"]
    assert (project / "again/model.bin").stat().st_size == 1000
