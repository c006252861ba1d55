"""Which datasets this machine knows of."""

from __future__ import annotations

from amlctl.operations.context import Context
from amlctl.operations.sync.dataset_state import LocalState
from amlctl.runs.records import local_records
from amlctl.snapshots.heads import has_head
from amlctl.snapshots.store_format import find_store_id


def known_datasets(context: Context, state: LocalState) -> list[str]:
    """Those that were synced with the store from here, or published into it by runs, as far as they still exist."""
    project, store = context.project, context.store
    synced = {dataset for key in (find_store_id(store), store.url) for dataset in state.sync.datasets(key)}
    published = {dataset for record in local_records(project.state_dir) for dataset in record.published}
    here = {dataset for dataset in synced if project.dataset_path(dataset).exists()}
    return sorted(here | {dataset for dataset in (synced | published) - here if has_head(store, dataset)})
