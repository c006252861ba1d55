"""Which credential a store gets, by the variables that are set; the SAS of an account key."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import Any

import pytest
from azure.core.pipeline import PipelineContext, PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import HTTPPolicy
from azure.core.rest import HttpRequest

from amlctl.errors import SettingsError
from amlctl.stores.azure_blob.address import parse_address
from amlctl.stores.azure_blob.credentials import AccountKey, Credential, SasToken, Token, find_credential

_EMPTY = {
    "AZURE_STORAGE_ACCOUNT": "",
    "AZURE_STORAGE_CONNECTION_STRING": "",
    "AZURE_STORAGE_KEY": "",
    "AZURE_STORAGE_SAS_TOKEN": "",
}


def _found(variables: dict[str, str]) -> Credential:
    address, sas = parse_address("https://mine.blob.core.windows.net/data")
    return find_credential(address, sas, variables)


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({}, Token),
        ({"AZURE_STORAGE_KEY": "eA=="}, AccountKey),
        ({"AZURE_STORAGE_SAS_TOKEN": "sv=1&sig=x"}, SasToken),
        ({"AZURE_STORAGE_CONNECTION_STRING": "AccountName=;AccountKey=eA=="}, AccountKey),
        ({"AZURE_STORAGE_CONNECTION_STRING": "accountname=mine; ACCOUNTKEY=eA=="}, AccountKey),
        ({"AZURE_STORAGE_CONNECTION_STRING": "AccountKey=;SharedAccessSignature=sv=1&sig=x"}, SasToken),
    ],
)
def test_an_empty_variable_counts_as_not_set(variables: dict[str, str], kind: type) -> None:
    assert type(_found({**_EMPTY, **variables})) is kind


@pytest.mark.parametrize("name", ["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_CONNECTION_STRING"])
def test_the_key_of_another_account_is_not_used(name: str) -> None:
    other = "AccountName=other;AccountKey=eA==" if name.endswith("STRING") else "other"
    key = {} if name.endswith("STRING") else {"AZURE_STORAGE_KEY": "eA=="}
    assert type(_found({name: other, **key})) is Token


def test_a_connection_string_without_a_key_is_reported() -> None:
    with pytest.raises(SettingsError, match="neither AccountKey nor SharedAccessSignature"):
        _found({"AZURE_STORAGE_CONNECTION_STRING": "AccountName=mine;AccountKey="})


@pytest.mark.parametrize(
    ("token", "reported"),
    [("sp=rl&sig=x", "allows 'rl'"), ("si=readers&sig=x", "allows what its policy 'readers' says")],
)
def test_a_sas_tells_what_it_allows(token: str, reported: str) -> None:
    assert reported in SasToken(token).explain()


class _Service(HTTPPolicy[Any, Any]):
    """The end of a pipeline."""

    def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        return PipelineResponse(request.http_request, None, request.context)


def test_the_sas_of_a_key_is_kept_until_shortly_before_it_expires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = time.time()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(time, "time", lambda: now_s)
    key, other_key = (base64.b64encode(text).decode() for text in (b"one", b"two"))

    def signed(container: str, key: str) -> str:
        request = PipelineRequest(HttpRequest("GET", "https://one.blob.core.windows.net"), PipelineContext(None))
        policy = AccountKey("one", container, key, "AZURE_STORAGE_KEY").policy
        policy.next = _Service()
        policy.send(request)
        return str(request.http_request.url)

    first = signed("data", key)
    assert "sig=" in first
    now_s += 60
    assert signed("data", key) == first
    assert len({first, signed("other", key), signed("data", other_key)}) == 3
    [kept] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert key not in kept.read_text()
    now_s += 23.5 * 3600
    assert signed("data", key) != first
