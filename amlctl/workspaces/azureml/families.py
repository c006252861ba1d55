"""Sweeps and pipelines: a parent, and the runs that Azure ML makes for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from amlctl.core.run import RunRecord
from amlctl.core.run_state import is_final
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.job import is_of_amlctl
from amlctl.workspaces.azureml.records import Records


class Families:
    """`stored` reads the store's record of a run, None without one."""

    def __init__(self, connection: Connection, records: Records, stored: Callable[[str], RunRecord | None]) -> None:
        self._connection = connection
        self._records = records
        self._stored = stored

    def with_children(self, record: RunRecord, status: str) -> RunRecord:
        """`status` is that of the look. Unchanged for a run without any. Raises ServiceUnavailable."""
        if record.spec.job_type is None:
            return record
        from amlctl.workspaces.azureml.looks import children_of, counted_states

        children = children_of(self._connection, record.run)
        if record.spec.sweep:
            from amlctl.workspaces.azureml.sweeps import named_children

            return replace(record, children=named_children(record, children, self._trial))
        return replace(record, children=children, waits_for="" if is_final(status) else counted_states(children))

    def is_ours(self, document: Mapping[str, Any]) -> bool:
        """Whether an amlctl has made the run of run history, or Azure ML for a sweep of amlctl."""
        parent = str(document.get("parentRunId") or "")
        if is_of_amlctl(document) or not parent:
            return is_of_amlctl(document)
        record = self._records.load(parent) or self._stored(parent)
        return record is not None and bool(record.spec.sweep)

    def _trial(self, run: str) -> RunRecord | None:
        """The record of a run of a sweep; None before its node has written it."""
        record = self._records.load(run)
        if record is None and (record := self._stored(run)) is not None:
            self._records.save(record)
        return record
