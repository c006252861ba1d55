"""Store URLs of Azure Blob Storage: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from amlctl.core.settings import Settings
from amlctl.errors import SettingsError
from amlctl.localfs.project import Project
from amlctl.stores.azure_blob.address import parse_address
from amlctl.wiring import App

_HOST = "https://acc.blob.core.windows.net"


@pytest.mark.parametrize(
    ("url", "what", "hint"),
    [
        ("https://", "has no host", "https://ACCOUNT"),
        ("https:///data", "has no host", "https://ACCOUNT"),
        ("https://?sig=hush", "has no host", "https://ACCOUNT"),
        ("http://host:notaport/a/data", "an invalid port", "https://ACCOUNT"),
        ("http://host:99999/a/data", "an invalid port", "https://ACCOUNT"),
        ("http://host:0/a/data", "an invalid port", "https://ACCOUNT"),
        ("https://[::1/data", "is not a URL", "https://ACCOUNT"),
        ("https://[::1/data?sig=hush", "is not a URL", "https://ACCOUNT"),
        ("https://a\u2100b/data", "is not a URL", "https://ACCOUNT"),
        (f"{_HOST}/data/%ff", "is not a URL", "https://ACCOUNT"),
        ("https://acc blob/a/data", "has an invalid host", "https://ACCOUNT"),
        ("https://acc..net/data", "has an invalid host", "https://ACCOUNT"),
        (f"https://{'a' * 64}.net/data", "has an invalid host", "https://ACCOUNT"),
        ("http://127.0.0.1:10000/\u00fc/data", "invalid account", "https://ACCOUNT"),
        ("http://127.0.0.1:10000/a b/data", "invalid account", "https://ACCOUNT"),
        (f"http{_HOST.removeprefix('https')}/data?sig=hush", "unencrypted", f"{_HOST}/data"),
        ("http://20.60.1.1:10000/acc/data?sig=hush", "unencrypted", "https://20.60.1.1:10000/acc/data"),
        ("http://[2600::1]/acc/data", "unencrypted", "https://[2600::1]/acc/data"),
        (_HOST, "has no container", f"{_HOST}/CONTAINER/PREFIX"),
        (f"{_HOST}/", "has no container", f"{_HOST}/CONTAINER/PREFIX"),
        (f"{_HOST}?sv=1&sig=hush", "has no container", f"{_HOST}/CONTAINER/PREFIX"),
        ("http://127.0.0.1:1", "neither account nor container", "http://127.0.0.1:1/ACCOUNT/CONTAINER/PREFIX"),
        ("http://127.0.0.1:1/acc", "has no container", "http://127.0.0.1:1/acc/CONTAINER/PREFIX"),
        (f"{_HOST}/Data", "invalid container 'Data'", "lower-case"),
        (f"{_HOST}/d", "invalid container 'd'", "3 to 63"),
        (f"{_HOST}/a--b", "invalid container 'a--b'", "single hyphens"),
        (f"{_HOST}/-ab", "invalid container '-ab'", "single hyphens"),
        (f"{_HOST}/{'a-' * 32}a", "invalid container", "3 to 63"),
        (f"{_HOST}/data/{'p' * 1000}", "a prefix of more than 896 characters", "1024"),
        (f"{_HOST}/data/../x", "invalid prefix", "https://ACCOUNT"),
        (f"{_HOST}/data/%00", "invalid prefix", "https://ACCOUNT"),
        ("https://me:hush@acc.blob.core.windows.net/data", "has a login", "AZURE_STORAGE_KEY"),
        ("https://me@acc.blob.core.windows.net/data", "has a login", "AZURE_STORAGE_KEY"),
        ("https://me:hu@sh@acc.blob.core.windows.net/data", "has a login", "AZURE_STORAGE_KEY"),
        ("https://me:hush/x@acc.blob.core.windows.net/data", "an invalid port", "https://ACCOUNT"),
        ("https://me:hush?x@acc.blob.core.windows.net/data", "an invalid port", "https://ACCOUNT"),
        ("https://me:hush#x@acc.blob.core.windows.net/data", "fragment", "%23"),
        ("https://me:hush@[x/data", "is not a URL", "https://ACCOUNT"),
        (f"{_HOST}/data#part", "fragment", "%23"),
        (f"{_HOST}/data#?sv=1&sig=hush", "fragment", "%23"),
        (f"{_HOST}/data?sv=1", "not a SAS token", "sig="),
        (f"{_HOST}/data&sv=1&sig=hush", "SAS token in its path", "?sv="),
        (f"{_HOST}/data/sv=1&sig=hush", "SAS token in its path", "?sv="),
        (f"{_HOST}/data%3Fsv=1%26sig%3Dhush", "SAS token in its path", "?sv="),
    ],
)
def test_a_url_that_cannot_be_used_is_reported_without_its_secrets(
    tmp_path: Path, url: str, what: str, hint: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        App(Project(tmp_path), Settings(), {"AZURE_STORAGE_KEY": "eA=="}).open_store(url)
    reported = caught.value
    assert what in reported.message
    assert hint in reported.hint
    assert reported.message.startswith("store 'https://" if url.startswith("https") else "store 'http://")
    assert "hush" not in reported.message + reported.hint


@pytest.mark.parametrize("url", ["file://[x/folder", "s3://me:hush@bucket/x", "abfss://data@acc/x?sig=hush"])
def test_a_url_of_another_kind_is_reported_without_its_secrets(tmp_path: Path, url: str) -> None:
    with pytest.raises(SettingsError, match=r"is (no|not a|not a valid) URL|is not a supported kind") as caught:
        App(Project(tmp_path), Settings(), {}).open_store(url)
    assert "hush" not in caught.value.message


@pytest.mark.parametrize(
    ("url", "account", "container", "prefix"),
    [
        (f"{_HOST}/data", "acc", "data", "amlctl/"),
        (f"{_HOST}:443/data//a/b/", "acc", "data", "a/b/"),
        (f"{_HOST.upper().replace('HTTPS', 'https')}/a-b", "acc", "a-b", "amlctl/"),
        (f"{_HOST}/data/a%20b%2541%23%3F\u00fc", "acc", "data", "a b%41#?\u00fc/"),
        (f"{_HOST}/{'a' * 63}/p", "acc", "a" * 63, "p/"),
        ("http://127.0.0.1:10000/dev/data/p", "dev", "data", "p/"),
        ("http://[::1]:10000/dev/data/p", "dev", "data", "p/"),
        ("http://10.1.2.3:10000/dev/data", "dev", "data", "amlctl/"),
        ("http://[fd00::1]:10000/dev/data", "dev", "data", "amlctl/"),
        ("http://localhost:10000/dev/data", "dev", "data", "amlctl/"),
        ("http://azurite/dev/data", "dev", "data", "amlctl/"),
        (f"HTTPS{_HOST.removeprefix('https')}/data", "acc", "data", "amlctl/"),
    ],
)
def test_a_url_means_an_account_a_container_and_a_prefix(url: str, account: str, container: str, prefix: str) -> None:
    address, sas = parse_address(url)
    assert (address.account, address.container, address.prefix, sas) == (account, container, prefix, "")
    assert parse_address(address.url) == (address, "")


def test_a_sas_token_is_not_part_of_the_address() -> None:
    address, sas = parse_address(f"{_HOST}/data?sv=1&sig=hush")
    assert sas == "sv=1&sig=hush"
    assert "hush" not in address.url + repr(address)
