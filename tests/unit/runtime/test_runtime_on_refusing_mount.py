"""The runtime, as a real process, on a node whose disk and whose store refuse what is dispensable."""

from __future__ import annotations

from pathlib import Path

import pytest

from amlctl.core.run import RunRecord
from amlctl.core.store_keys import published_key
from amlctl.core.sync_plan import Layout
from amlctl.runs.produced import Publisher
from tests.support import refusing_os
from tests.support.runs import wait_until
from tests.support.runtime_node import Node

_SCRIPT = """
    import os, sys
    rank = os.environ.get("LOCAL_RANK", "0")
    data, outputs = os.environ["AMLCTL_DATA_BLOBS_DIR"], os.environ["AMLCTL_OUTPUTS_DIR"]
    assert open(f"{data}/raw/small.txt").read() == "small"
    assert len(open(f"{data}/raw/large.bin", "rb").read()) == 17 << 20
    before = os.path.join(outputs, "model.bin")
    print(rank, "found", os.path.exists(before), "attempt", os.environ["AMLCTL_ATTEMPT"])
    if rank == "0":
        open(before, "wb").write(bytes(17 << 20))
        open(os.path.join(outputs, "run.sh"), "w").write("#!/bin/sh")
        os.makedirs(f"{data}/working/made", exist_ok=True)
        open(f"{data}/working/made/x.txt", "w").write("made")
"""


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "mount").mkdir()
    return Node(tmp_path / "mount")


def variables(tmp_path: Path, node: Node, operations: str, error: str) -> dict[str, str]:
    site = refusing_os.site_folder(tmp_path / "site")
    path = f"{site}:{node.runtime}"
    return {"PYTHONPATH": path, **refusing_os.variables(tmp_path / "mount", operations, error)}


@pytest.mark.parametrize(
    ("operations", "error", "mode"),
    [
        *((operations, error, "mount") for operations, error in refusing_os.cases()),
        *((operations, error, "download") for operations, error in refusing_os.cases()[-1:]),
    ],
)
def test_a_run_keeps_what_it_makes(tmp_path: Path, node: Node, operations: str, error: str, mode: str) -> None:
    record = make(node, mode=mode)
    refused = variables(tmp_path, node, operations, error)
    for attempt in ("1", "2"):
        code, text = node.run(record, variables=refused)
        assert code == 0, text
        assert f"0 found {attempt == '2'} attempt {attempt}" in text
        if attempt == "1":  # another node continues
            node.container = tmp_path / "mount/second"
            refused = variables(tmp_path, node, operations, error)
    assert node.output(record, "model.bin") == bytes(17 << 20)
    assert node.output(record, "run.sh") == b"#!/bin/sh"
    assert b"working/made" in node.store.get(published_key(record.run))


@pytest.mark.parametrize(("operations", "error"), [("flock", "ENOLCK"), refusing_os.cases()[-1]])
def test_the_processes_of_a_node_find_each_other(tmp_path: Path, node: Node, operations: str, error: str) -> None:
    record = make(node, distribution="pytorch", processes=2)
    refused = variables(tmp_path, node, operations, error)
    processes = [
        node.start(record, "--rank", "0", str(local), variables={**refused, "LOCAL_RANK": str(local)})
        for local in (0, 1)
    ]
    texts = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], texts
    assert sum("attempt 1" in text for text in texts) == 2
    wait_until(lambda: node.output(record, "run.sh") == b"#!/bin/sh", what="the outputs")


def make(node: Node, **fields: object) -> RunRecord:
    raw = node.project.data_blobs_dir / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    (raw / "small.txt").write_text("small")
    (raw / "large.bin").write_bytes(bytes(17 << 20))
    published = Publisher(node.store, raw, "raw", base_key=None, layout=Layout()).publish()
    return node.record(
        _SCRIPT,
        datasets={"raw": published.snapshot},
        manifests={"raw": published.manifest_key},
        produces=["working/made"],
        **fields,
    )
