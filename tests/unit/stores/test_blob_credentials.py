"""Which credential a store gets, by the variables that are set."""

from __future__ import annotations

import pytest

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
