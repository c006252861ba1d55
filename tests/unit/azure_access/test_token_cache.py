"""Tokens on disk: found again only by the same kind of request."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest

from amlctl.azure_access.login import Login, TokenCache
from amlctl.errors import LoginError
from tests.support.fault_proxy import fault_proxy
from tests.support.identity_endpoint import running_identity_endpoint
from tests.support.wire_faults import FAULTS


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_a_kept_token_is_found_by_the_same_login_only(home: Path) -> None:
    variables = {"AZURE_CLIENT_ID": "app", "AZURE_CLIENT_SECRET": "hush", "PATH": "/bin"}
    TokenCache(variables).keep("one", "the token", 5e9)
    assert TokenCache({**variables, "PATH": "/other"}).get("one") == ("the token", 5e9)
    assert TokenCache(variables).get("two") is None
    assert TokenCache({**variables, "AZURE_CLIENT_SECRET": "other"}).get("one") is None
    [file] = [path for path in home.rglob("*") if path.is_file()]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert "hush" not in file.read_text()


def test_another_login_of_the_az_cli_is_not_the_same(home: Path) -> None:
    profile = home / ".azure/azureProfile.json"
    profile.parent.mkdir()
    profile.write_text("{}")
    TokenCache({}).keep("one", "the token", 5e9)
    assert TokenCache({}).get("one") is not None
    os.utime(profile, ns=(1, 1))
    assert TokenCache({}).get("one") is None


@pytest.mark.parametrize("harm", [b"", b"[1]", b"{", b'{"a": 3}', b"\xff"])
def test_a_damaged_file_counts_as_none(home: Path, harm: bytes) -> None:
    TokenCache({}).keep("one", "the token", 5e9)
    [file] = [path for path in home.rglob("*") if path.is_file()]
    file.write_bytes(harm)
    assert TokenCache({}).get("one") is None
    TokenCache({}).keep("one", "another", 6e9)
    assert TokenCache({}).get("one") == ("another", 6e9)


def test_the_next_process_need_not_log_in(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_identity_endpoint() as endpoint:
        for name, value in endpoint.variables.items():
            monkeypatch.setenv(name, value)
        first = Login().token("https://storage.azure.com")
        assert Login().token("https://storage.azure.com") == first
        assert len(endpoint.asked) == 1
        Login().token("https://storage.azure.com", is_fresh=True)
        Login().token("https://management.azure.com")
        assert len(endpoint.asked) == 3
        Login(tenant_id="").token("https://storage.azure.com")
        assert len(endpoint.asked) == 3


def test_of_many_requests_that_are_refused_at_once_one_logs_in_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_identity_endpoint() as endpoint:
        for name, value in endpoint.variables.items():
            monkeypatch.setenv(name, value)
        Login().token("https://storage.azure.com")
        login = Login()
        found = {login.token("https://storage.azure.com", is_fresh=True) for _ in range(3)}
        assert len(found) == 1
        assert len(endpoint.asked) == 2


def test_a_token_that_is_about_to_run_out_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_identity_endpoint() as endpoint:
        for name, value in endpoint.variables.items():
            monkeypatch.setenv(name, value)
        Login().token("a")
        TokenCache(os.environ).keep("  a", "old", 1.0)
        assert Login().token("a")[0] != "old"
        assert len(endpoint.asked) == 2


def test_which_login_counts_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_identity_endpoint() as endpoint:
        for name, value in endpoint.variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")
        monkeypatch.setenv("PATH", "")
        with pytest.raises(LoginError, match="for here") as caught:
            Login(purpose=" for here").token("a")
        assert caught.value.hint.startswith("az login")
        assert endpoint.asked == []
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
        Login().token("a")
        assert len(endpoint.asked) == 1


def test_claims_that_the_az_cli_cannot_bring_are_named_in_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the second factor that Azure asks for when something is created."""
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "AzureCliCredential")
    claims = '{"access_token":{"acrs":{"essential":true,"values":["p1"]}}}'
    with pytest.raises(LoginError, match=r"a new login for here, most likely with a second factor \(MFA\)") as caught:
        Login(tenant_id="t", purpose=" for here").token("https://management.azure.com", claims=claims)
    challenge = base64.b64encode(claims.encode()).decode()
    command = f"az login --tenant t --scope https://management.azure.com/.default --claims-challenge {challenge} "
    assert command in caught.value.hint


def test_the_login_that_is_set_up_says_why_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    with fault_proxy("http://127.0.0.1:1") as proxy:
        proxy.act = lambda _: FAULTS["page-200"]
        for name, value in (
            ("IDENTITY_ENDPOINT", f"{proxy.url}/token"),
            ("IDENTITY_HEADER", "x"),
            ("PATH", "/nowhere"),
        ):
            monkeypatch.setenv(name, value)
        with pytest.raises(LoginError, match="The login to Azure failed: ManagedIdentityCredential: "):
            Login().token("https://storage.azure.com")
