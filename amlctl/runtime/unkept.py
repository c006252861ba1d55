"""What a script has written below `data_blobs/` that ends with the run: no produced dataset holds it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from amlctl.core.run import RunRecord
from amlctl.localfs.folders import walk
from amlctl.runtime.script import NodeFolders


def start_of_script(folders: NodeFolders) -> int:
    """The file system's present time in nanoseconds; files that the script writes have a later one."""
    marker = _marker(folders)
    marker.write_bytes(b"\n")  # a touch may be refused where a write is not
    return marker.stat().st_mtime_ns


def has_started(folders: NodeFolders) -> bool:
    """Whether a process of the node was about to start its script."""
    return os.path.exists(_marker(folders))


def _marker(folders: NodeFolders) -> Path:
    return folders.state_dir / "started"


def unkept_files(record: RunRecord, folders: NodeFolders, since_ns: int) -> Mapping[str, int]:
    """How many files were written since then, by the dataset that would have to be produced to keep them."""
    root = folders.data_blobs_dir
    found: Counter[str] = Counter()
    for folder, _, names in walk(root):
        for name in names:
            path = Path(folder, name)
            with contextlib.suppress(OSError):
                seen = path.lstat()
                if stat.S_ISREG(seen.st_mode) and seen.st_mtime_ns > since_ns:
                    found[_dataset_of(path.relative_to(root), record)] += 1
    return {dataset: files for dataset, files in sorted(found.items()) if dataset not in record.spec.produces}


def _dataset_of(path: Path, record: RunRecord) -> str:
    """The produced dataset or the input that `path` lies in, else what would be one: `raw/x`, `working/x`."""
    for dataset in (*record.spec.produces, *sorted(record.spec.manifests, reverse=True)):
        if path == Path(dataset) or Path(dataset) in path.parents:
            return dataset
    return Path(*path.parts[:2]).as_posix()
