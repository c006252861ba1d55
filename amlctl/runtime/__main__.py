"""`python -m amlctl.runtime --store DIR --run ID --container DIR`: see `amlctl.runtime.node`."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from amlctl.core.run_id import child_id
from amlctl.runtime.node import Node, Timing
from amlctl.runtime.ranks import NodeRank, node_rank
from amlctl.runtime.script import NodeFolders
from amlctl.stores.contract import Store
from amlctl.stores.directory import DirectoryStore
from amlctl.stores.presence import StoreOfRun


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="amlctl.runtime", description="Run a script on a compute node")
    parser.add_argument("--store", type=Path, required=True, help="the store, as a folder; may be read-only")
    parser.add_argument("--save", type=Path, help="the store as a folder that can be written (default: --store)")
    parser.add_argument("--run", required=True, help="run id")
    parser.add_argument("--trial", type=int, metavar="N", help="combination N of the sweep --run, as a run of its own")
    parser.add_argument("--container", type=Path, required=True, help="the working container, with pipeline/ in it")
    parser.add_argument("--outputs", type=Path, help="what the script's outputs_dir() is (default: outputs/ there)")
    parser.add_argument("--save-interval", type=float, default=Timing.save_interval_s, metavar="SECONDS")
    parser.add_argument("--grace", type=float, default=Timing.grace_s, metavar="SECONDS")
    parser.add_argument(
        "--rank",
        type=int,
        nargs=2,
        metavar=("NODE", "LOCAL"),
        help="number of the node, and of the process on it, from 0 (default: from the launcher's variables)",
    )
    parser.add_argument(
        "--place",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "PATH"),
        help="mount path of an input or output of a job file, e.g. inputs.data /mnt/data",
    )
    parser.add_argument(
        "words", nargs="*", metavar="COMMAND", help="shown on the page of the run; the record in the store decides"
    )
    options = parser.parse_args(arguments)
    container = options.container.absolute()
    if options.rank:  # a supervisor on this machine has started it
        store: Store = StoreOfRun(DirectoryStore(options.store, may_be_new=False), options.run)
    else:
        store = DirectoryStore(options.store)
    node = Node(
        store=store,
        save_store=DirectoryStore(options.save) if options.save else store,
        folders=NodeFolders(container, (options.outputs or container / "outputs").absolute()),
        rank=NodeRank(*options.rank) if options.rank else node_rank(os.environ),
        variables=os.environ,
        timing=Timing(options.save_interval, options.grace),
        places=dict(options.place),
    )
    if options.trial is None:
        return node.run(options.run)
    run = os.environ.get("AZUREML_RUN_ID") or child_id(options.run, options.trial)
    return node.run(run, (options.run, options.trial))


if __name__ == "__main__":
    code = main(sys.argv[1:])
    gc.freeze()  # saves the interpreter 15 ms of garbage collection at its end
    sys.exit(code)
