"""Documents of Azure ML: values of another kind are errors; what users choose is theirs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from amlctl.workspaces.azureml.documents import parsed
from amlctl.workspaces.azureml.job import time_of

CHOSEN = {"status": "mine", "tags": "a string", "outputs": "x", "properties": "y"}


@pytest.mark.parametrize(
    "document",
    [
        {"runId": "r", "status": "Running", "properties": CHOSEN, "hidden": False, "logFiles": None},
        {"name": "j", "properties": {"jobType": "Command", "status": "Queued", "properties": CHOSEN}},
        {"value": [{"name": "c", "properties": {"computeType": "AmlCompute", "properties": {"scaleSettings": {}}}}]},
        {"value": "Cores"},
    ],
)
def test_what_the_service_sends_is_taken(document: dict[str, Any]) -> None:
    assert parsed(json.dumps(document).encode()) == document


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b" ", "it is empty"),
        (b"{}", "it is empty"),
        (b"<html>", "it is not JSON"),
        (b'{"status": "Runn', "it is not JSON"),
        (b"[" * 10_000, "it is not JSON"),
        (b"null", "it is not an object"),
        (b'{"value": [null]}', "it has a list with something else than objects"),
        (b'{"status": 5}', "it has 'status', which is not a string"),
        (b'{"hidden": "no"}', "it has 'hidden', which is not a boolean"),
        (b'{"properties": []}', "it has 'properties', which is not an object"),
        (b'{"value": [{"properties": {"outputs": 1}}]}', "it has 'outputs', which is not an object"),
        (
            b'{"properties": {"computeType": "AmlCompute", "properties": {"errors": "x"}}}',
            "it has 'errors', which is not a list",
        ),
    ],
)
def test_anything_else_is_not(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parsed(data)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00", "9999-12-31T23:59:59.999-12:00", "2026-13-01", None, 5])
def test_a_time_that_means_none(text: Any) -> None:
    assert time_of(text) is None
