"""A first sync into an empty store on the same disk."""

from __future__ import annotations

import peers
from data import TreeShape, write_tree
from measure import interleaved
from result import Goal, Result, ratio, rows_of
from sandbox import Sandbox, remover

SHAPE = TreeShape(files=20_000, folders=20, smallest=2_000, largest=40_000, seed=2)


def measure(sandbox: Sandbox) -> Result:
    shape = SHAPE.scaled(sandbox.scale)
    project = sandbox.new_project("cold")
    tree = project / "data_blobs" / "working" / "images"
    size_bytes = write_tree(tree, shape)
    state_and_store = project / ".amlctl"
    ours = sandbox.amlctl("amlctl", ["sync", "data_blobs/working/images"], project, prepare=remover(state_and_store))
    restic = peers.restic_backup(sandbox, tree, sandbox.folder / "restic")
    others = [
        peers.copy(sandbox, tree, sandbox.folder / "copy"),
        peers.tar(sandbox, tree, sandbox.folder / "images.tar"),
        restic,
    ]
    commands = [ours, *(peer for peer in others if peer)]
    samples = interleaved(commands, sandbox.repetitions, sandbox.tell)
    rows = rows_of(commands, samples, [] if restic else ["restic"])
    return Result(
        "cold",
        f"{shape.files:,} files of {shape.smallest / 1000:.0f}–{shape.largest / 1000:.0f} kB "
        f"({size_bytes / 1e6:.0f} MB of random bytes) into an empty place on the same disk",
        rows,
        [
            Goal("at most 1.5 × tar", ratio(rows, "amlctl", "tar"), 1.5),
            Goal("at least 3 × as fast as restic", ratio(rows, "restic", "amlctl"), 3.0, is_lower_bound=True),
        ],
    )
