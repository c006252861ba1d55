"""A sync that finds nothing to do, in a large tree."""

from __future__ import annotations

import peers
from data import TreeShape, write_tree
from measure import CommandFailed, interleaved
from result import Goal, Result, ratio, rows_of
from sandbox import Sandbox

SHAPE = TreeShape(files=200_000, folders=200, smallest=100, largest=2_000, seed=1)


def measure(sandbox: Sandbox) -> Result:
    shape = SHAPE.scaled(sandbox.scale)
    project = sandbox.new_project("noop")
    tree = project / "data_blobs" / "working" / "many"
    size_bytes = write_tree(tree, shape)
    sandbox.tell("first sync and first commit")
    ours = sandbox.amlctl("amlctl", ["sync", "data_blobs/working/many"], project)
    sandbox.answer_of(ours)
    others = [peer for peer in (peers.git_status(sandbox, tree), peers.find_by_size(sandbox, tree)) if peer]
    again = sandbox.answer_of(ours)
    if again["unchanged"] != shape.files or again["hashed_bytes"]:
        raise CommandFailed(f"the second sync was not a no-op: {again}")
    commands = [ours, *others]
    rows = rows_of(commands, interleaved(commands, sandbox.repetitions, sandbox.tell))
    samples = rows[0].samples
    assert samples is not None
    return Result(
        "noop",
        f"{shape.files:,} unchanged files ({size_bytes / 1e6:.0f} MB) in {shape.folders} folders; "
        f"the sync asks the store {again['requests']} time(s)",
        rows,
        [
            Goal("at most 1.5 × git status", ratio(rows, "amlctl", "git status"), 1.5),
            Goal("at most 150 MB of memory", samples.peak / 1e6, 150, "MB"),
        ],
    )
