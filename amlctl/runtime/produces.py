"""The datasets that a run produces: their bytes and manifests are published when the script has succeeded."""

from __future__ import annotations

import json
from pathlib import Path

from amlctl.core.events import null_sink
from amlctl.core.message import count
from amlctl.core.run import RunRecord
from amlctl.core.store_keys import published_key
from amlctl.core.sync_plan import Layout
from amlctl.errors import Conflict, NotFound
from amlctl.localfs.ignore import DATASET_IGNORE_FILES, RulesBelow
from amlctl.runs.produced import Published, are_kept, publish
from amlctl.runtime.data import Log
from amlctl.runtime.script import NodeFolders
from amlctl.snapshots.gc_mark import GcWatch
from amlctl.stores.contract import Store

_PUBLISH_TRIES = 4


def publish_produced(store: Store, record: RunRecord, folders: NodeFolders, log: Log) -> None:
    """Bytes and manifest of every dataset that the run was to produce. Raises NotFound, Conflict, RightsError."""
    _place_ignore_files(record, folders)
    for _ in range(_PUBLISH_TRIES):
        watch = GcWatch(store, null_sink, may_take_over=False)
        watch.note()
        results = {dataset: _publish_one(store, record, folders, dataset, log) for dataset in record.spec.produces}
        published = {
            dataset: {"snapshot": result.snapshot, "manifest_key": result.manifest_key}
            for dataset, result in results.items()
        }
        store.put(published_key(record.run), (json.dumps(published) + "\n").encode(), replace=True)
        if are_kept(store, watch, list(results.values())):
            return
        log("a gc of the store deleted some of what was published; sending it again")
    raise Conflict("each attempt to publish lost data to a gc of the store", hint="run the script again")


def _publish_one(store: Store, record: RunRecord, folders: NodeFolders, dataset: str, log: Log) -> Published:
    source = folders.data_blobs_dir / dataset
    if not source.exists():
        raise NotFound(
            f"the script has not produced the dataset {dataset}: data_blobs/{dataset} does not exist",
            hint="write below data_blobs_dir() of file_paths, or remove --produces",
        )
    result = publish(
        store,
        source,
        dataset,
        base_key=record.spec.heads.get(dataset),
        layout=_layout(record),
        rules=_rules(record, folders, source),
        made_by=f"run {record.run}",
    )
    log(f"produced {dataset}: {count(result.files, 'file')}, snapshot {result.snapshot}")
    return result


def _place_ignore_files(record: RunRecord, folders: NodeFolders) -> None:
    """Ignore files above the datasets apply here as on the machine that submitted the run."""
    for name, text in record.spec.sync.get("ignore_files", {}).items():
        path = folders.data_blobs_dir / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(str(text).encode("utf-8", "surrogateescape"))


def _layout(record: RunRecord) -> Layout:
    sizes = {name: int(record.spec.sync[name]) for name in ("pack_below", "pack_size") if name in record.spec.sync}
    return Layout(str(record.spec.sync.get("layout", "auto")), **sizes)


def _rules(record: RunRecord, folders: NodeFolders, source: Path) -> RulesBelow:
    patterns = [str(pattern) for pattern in record.spec.sync.get("ignore", ())]
    return RulesBelow(folders.data_blobs_dir, DATASET_IGNORE_FILES, source, patterns)
