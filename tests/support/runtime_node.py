"""A node of a run: a fresh container, and the runtime in it as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from amlctl.core.job import RUNTIME_ARCHIVE
from amlctl.core.run import RunRecord
from amlctl.core.store_keys import (
    code_prefix,
    outputs_prefix,
    record_key,
)
from amlctl.stores.directory import DirectoryStore
from amlctl.workspaces.local.node_files import make_container
from tests.support.runs import make_project, make_record, write_script
from tests.support.shared_runtime import unpack_shared


class Node:
    """A fresh container for one record, and the runtime in it."""

    def __init__(self, tmp_path: Path) -> None:
        self.project = make_project(tmp_path / "project")
        self.store = DirectoryStore(tmp_path / "store")
        self.container = tmp_path / "container"
        self.runtime = self.container / RUNTIME_ARCHIVE
        self.is_zipped = False
        """The runtime stays in its archive, as on Azure ML; else it need not be compiled again."""
        self._store_folder = tmp_path / "store"

    def make_container(self, record: RunRecord) -> None:
        make_container(self.store, record.spec.code, self.container, self._store_folder.parent / "runtimes")
        if not self.runtime.exists():
            self.runtime.write_bytes(self.store.get(code_prefix(record.spec.code) + RUNTIME_ARCHIVE))
            if not self.is_zipped:
                unpack_shared(self.runtime)

    def record(self, script: str, **fields: Any) -> RunRecord:
        record = make_record(self.project, self.store, write_script(self.project, script), **fields)
        self.store.put(record_key(record.run), json.dumps(record.to_json()).encode(), replace=True)
        return record

    def start(
        self,
        record: RunRecord,
        *options: str,
        python: str = sys.executable,
        variables: dict[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        if not self.container.exists():
            self.make_container(record)
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(self.runtime),
            **(variables or {}),
        }
        command = [python, "-m", "amlctl.runtime", "--store", str(self._store_folder), "--run", record.run]
        return subprocess.Popen(
            [*command, "--container", str(self.container), *options],
            cwd=self.container,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, record: RunRecord, *options: str, **how: Any) -> tuple[int, str]:
        process = self.start(record, *options, **how)
        text, _ = process.communicate(timeout=60)
        return process.returncode, text

    def output(self, record: RunRecord, path: str) -> bytes:
        return self.store.get(outputs_prefix(record.run) + path)
