"""Addresses of the services that run beside a job: ssh, VS Code, Jupyter, TensorBoard."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from amlctl.core.run import RunRecord
from amlctl.core.run_state import RunState
from amlctl.workspaces.azureml.connection import Connection

_VERSION = "2024-01-01-preview"
_AGAIN_S = 10.0
_OWN = ("Studio", "Tracking")
"""Every job has these."""


class Services:
    """Asks for the job's document while a service has no address yet. Not thread-safe."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._known: dict[str, tuple[float, dict[str, str], bool]] = {}

    def of(self, record: RunRecord, *, is_foreign: bool = False) -> dict[str, str]:
        """By name; empty unless the run works. Of a foreign run it is not known whether it has any."""
        if record.status != RunState.RUNNING.value or not (is_foreign or record.node.get("services")):
            return {}
        asked_at, addresses, is_whole = self._known.get(record.run, (float("-inf"), {}, False))
        if not is_whole and time.monotonic() - asked_at > _AGAIN_S:
            answer = self._connection.workspace("GET", f"/jobs/{record.run}", _VERSION, accept=(403, 404))
            document = answer.document if answer.status < 400 and isinstance(answer.document, Mapping) else {}
            found = (document.get("properties") or {}).get("services") or {}
            asked_for = {name: one or {} for name, one in found.items() if name not in _OWN}
            addresses = {name: address for name, one in asked_for.items() if (address := _address(one))}
            is_whole = len(addresses) == len(asked_for) and (bool(asked_for) or is_foreign)
            self._known[record.run] = time.monotonic(), addresses, is_whole
        return addresses


def _address(service: Mapping[str, Any]) -> str:
    """With what is wrong, where the service tells that."""
    endpoint = str(service.get("endpoint") or (service.get("properties") or {}).get("ProxyEndpoint") or "")
    error = str(service.get("errorMessage") or "")
    return f"{endpoint} ({error})".strip() if error else endpoint.replace("<nodeIndex>", "0")
