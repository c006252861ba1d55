"""The logs of an ended run, put into the store, where they outlive what Azure ML keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from amlctl.core.distribution import log_names
from amlctl.core.run import RunRecord
from amlctl.parallel import for_each
from amlctl.stores.contract import Store
from amlctl.workspaces.azureml.ending import save_log
from amlctl.workspaces.azureml.logs import AT_A_TIME, Logs, names_of
from amlctl.workspaces.azureml.looks import Look, Looks


def copy_logs(
    store: Store, record: RunRecord, look: Look, logs: Logs, looks: Looks, is_settled: Callable[[Look], bool]
) -> None:
    """The first one before the others: its reader waits for all of them."""

    def whole(name: str) -> Iterator[bytes]:
        cursor = 0
        while (seen := looks.last(record.run) or looks.at(record.run)) is not None:
            chunk = logs.read(record, seen, name, cursor, is_settled=is_settled(seen))
            if chunk.is_final:
                return
            yield chunk.data
            cursor = chunk.cursor

    def save(name: str) -> None:
        save_log(store, record.run, name, whole(name))

    expected = log_names(record.layout.world_size)
    names = [name for name in names_of(record, look.log_files) if name in expected]
    for name in names[:1]:
        save(name)
    for_each(save, names[1:], AT_A_TIME)
