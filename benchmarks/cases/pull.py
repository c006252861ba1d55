"""The same data, out of a store into an empty project."""

from __future__ import annotations

import peers
from data import write_tree
from measure import CommandFailed, interleaved
from result import Goal, Result, ratio, rows_of
from sandbox import Sandbox, remover

from cases.cold import SHAPE


def measure(sandbox: Sandbox) -> Result:
    shape = SHAPE.scaled(sandbox.scale)
    source, target = sandbox.new_project("pull-source"), sandbox.new_project("pull-target")
    tree = source / "data_blobs" / "working" / "images"
    size_bytes = write_tree(tree, shape)
    store = {"AMLCTL_STORE": str(sandbox.folder / "pull-store")}
    sandbox.answer_of(sandbox.amlctl("amlctl", ["sync", "data_blobs/working/images"], source, variables=store))
    empty = remover(target / "data_blobs", target / ".amlctl")
    ours = sandbox.amlctl(
        "amlctl", ["sync", "--pull", "data_blobs/working/images"], target, prepare=empty, variables=store
    )
    pulled = sandbox.answer_of(ours)
    if pulled["downloaded_files"] != shape.files:
        raise CommandFailed(f"the pull did not bring all: {pulled}")
    commands = [ours, peers.copy(sandbox, tree, sandbox.folder / "copy")]
    rows = rows_of(commands, interleaved(commands, sandbox.repetitions, sandbox.tell))
    return Result(
        "pull",
        f"{shape.files:,} files ({size_bytes / 1e6:.0f} MB) out of a store on the same disk into an empty project",
        rows,
        [Goal("at most 1.5 × cp -r", ratio(rows, "amlctl", "cp"), 1.5)],
    )
