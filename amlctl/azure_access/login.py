"""Tokens of DefaultAzureCredential, kept in memory and on disk until shortly before they expire.

On disk they are one file (0600) in the user's cache folder (0700), like those of the az CLI, so that the next command
need not log in again (with the az CLI that takes a second). A token is found only by a login of the same kind: its name
includes the variables that select a login, and the profile that `az login`, `az logout` and `az account set` write.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from azure.core.credentials import AccessToken

from amlctl.errors import LoginError, SettingsError
from amlctl.localfs.atomic import remove_left_behind, write_bytes
from amlctl.localfs.regular_file import read_regular

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

_RENEW_BEFORE_S = 300
_PROCESS_S = 40
"""For a token of the az CLI and the like; on a busy machine it takes longer than the SDK's limit of 10 s."""
_RENEWED_S = 30.0
"""A token counts as new for this long: of many requests that are refused at once, one asks for another token."""
_ATTEMPT = re.compile(r"\t\w+Credential: ")
_NOT_SET_UP = re.compile(r"unavailable|not (?:be )?(?:found|installed|configured)|requires the ")
_LONGEST_REASON = 300
_PREFIXES = ("AZURE_", "IDENTITY_", "MSI_", "IMDS_")
_PROFILES = (
    ("AZURE_CONFIG_DIR", "~/.azure", "azureProfile.json"),
    ("AZURE_CONFIG_DIR", "~/.azure", "AzureRmContext.json"),
    ("AZD_CONFIG_DIR", "~/.azd", "auth.json"),
)
"""Variable and default folder of the files that a tool writes when another login is selected."""
_MAX_KEPT = 50
_MOST_BYTES = 16 << 20


class Login:
    """Satisfies `azure.core.credentials.TokenCredential`. Thread-safe. `azure.identity` is imported only without a
    valid kept token: import and login take a second."""

    def __init__(
        self,
        *,
        authority: str = "",
        tenant_id: str = "",
        purpose: str = "",
        alternatives: str = "",
        audiences: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`purpose` (what the login is for) and `alternatives` to a login appear in errors. `audiences` are requested
        in place of others."""
        self._authority = authority
        self._tenant_id = tenant_id
        self._purpose = purpose
        self._alternatives = alternatives
        self._audiences = audiences
        self._credential: TokenCredential | None = None
        self._cache = TokenCache(os.environ)  # `azure.identity` reads the process's variables as well
        self._tokens: dict[str, AccessToken] = {}
        self._renewed_at_s: dict[str, float] = {}
        self._lock = Lock()

    def get_token(self, *scopes: str, claims: str | None = None, **_: Any) -> AccessToken:
        """As `token`. The tenant is the login's."""
        return self.token(scopes[0].removesuffix("/.default"), claims=claims or "")

    def token(self, audience: str, *, claims: str = "", is_fresh: bool = False) -> AccessToken:
        """A bearer token for `audience`; a new one if there are `claims`, or for `is_fresh` (after a refusal).

        Raises LoginError, SettingsError.
        """
        audience = self._audiences.get(audience, audience)
        name = " ".join((self._authority, self._tenant_id, audience))
        with self._lock:
            found = None
            if is_fresh and time.monotonic() - self._renewed_at_s.get(audience, float("-inf")) > _RENEWED_S:
                self._credential = None  # it would return the token that it keeps
                self._renewed_at_s[audience] = time.monotonic()
            elif not claims:
                found = _valid(self._tokens.get(audience)) or _valid(self._cache.get(name))
            if found is None:
                found = self._ask(audience, claims)
                self._cache.keep(name, *found)
            self._tokens[audience] = found
            return found

    def _ask(self, audience: str, claims: str) -> AccessToken:
        from azure.core.exceptions import AzureError
        from azure.identity import DefaultAzureCredential

        try:
            if self._credential is None:
                # Its page about every login it tried would appear above our one line.
                logging.getLogger("azure.identity").addHandler(logging.NullHandler())
                self._credential = DefaultAzureCredential(
                    **({"authority": self._authority} if self._authority else {}),
                    process_timeout=_PROCESS_S,
                    additionally_allowed_tenants=[self._tenant_id] if self._tenant_id else [],
                )
            return self._credential.get_token(
                f"{audience}/.default", claims=claims or None, tenant_id=self._tenant_id or None
            )
        except AzureError as error:
            if claims and "claims" in str(error):  # its command would be cut off in our one line
                raise LoginError(
                    f"Azure requires a new login{self._purpose}, most likely with a second factor (MFA)",
                    hint=login_with_claims(self._tenant_id, audience, base64.b64encode(claims.encode()).decode()),
                ) from error
            tenant = f" --tenant {self._tenant_id}" if self._tenant_id else ""
            raise LoginError(
                _failed(str(error), self._purpose),
                hint=f"az login{tenant}{self._alternatives}",
            ) from error
        except ValueError as error:  # an invalid tenant, an unknown kind of login
            why = str(error).partition("\n")[0]
            raise SettingsError(
                f"Invalid settings for the Azure login: {why}",
                hint="check tenant_id in the settings, and the variables AZURE_TOKEN_CREDENTIALS and AZURE_TENANT_ID",
            ) from error


def login_with_claims(tenant_id: str, audience: str, challenge: str) -> str:
    """The commands for a login with the claims that a service asks for, in base64. A plain `az login` may lack them:
    since 2025 Azure asks for a second factor when something is created, also where the login does not."""
    tenant = f" --tenant {tenant_id}" if tenant_id else ""
    return f"az logout; az login{tenant} --scope {audience}/.default --claims-challenge {challenge} (az 2.76 or newer)"


def _failed(text: str, purpose: str) -> str:
    """With the reason of the last kind of login that is set up here, else the SDK's summary."""
    summary, _, rest = text.partition("\n")
    attempts = [line.strip() for line in rest.splitlines() if _ATTEMPT.match(line) and not _NOT_SET_UP.search(line)]
    if attempts:
        return f"The login to Azure{purpose} failed: {attempts[-1][:_LONGEST_REASON]}"
    return f"Not logged in to Azure{purpose}: {summary[:_LONGEST_REASON]}"


def _valid(found: AccessToken | None) -> AccessToken | None:
    return found if found is not None and time.time() < found.expires_on - _RENEW_BEFORE_S else None


class TokenCache:
    """Losing it costs a login. If two processes write, the last one wins."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def get(self, name: str) -> AccessToken | None:
        """None if it is not kept."""
        found = self._read().get(self._key(name))
        if isinstance(found, list) and len(found) == 2 and isinstance(found[0], str):
            with suppress(TypeError, ValueError, OverflowError):
                return AccessToken(found[0], int(found[1]))
        return None

    def keep(self, name: str, token: str, expires_at_s: float) -> None:
        kept = self._read()
        kept.pop(self._key(name), None)
        kept[self._key(name)] = [token, expires_at_s]
        path = self._path()
        if not path.is_absolute():  # without a home folder
            return
        with suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.chmod(0o700)
            write_bytes(path, json.dumps(dict(list(kept.items())[-_MAX_KEPT:])).encode(), mode=0o600)

    def _read(self) -> dict[str, object]:
        path = self._path()
        with suppress(OSError, ValueError, RecursionError):
            remove_left_behind(path.parent)
            found = json.loads(read_regular(path, _MOST_BYTES))
            if isinstance(found, dict):
                return found
        return {}

    def _path(self) -> Path:
        from platformdirs import user_cache_path

        return user_cache_path("amlctl") / "login" / "tokens.json"

    def _key(self, name: str) -> str:
        """A digest, from which the variables cannot be read."""
        selected = sorted((key, value) for key, value in self._variables.items() if key.startswith(_PREFIXES))
        profiles: list[tuple[int, int] | None] = []
        for variable, default, file in _PROFILES:
            folder = self._variables.get(variable) or os.path.expanduser(default)
            try:
                seen = os.stat(os.path.join(folder, file))
                profiles.append((seen.st_mtime_ns, seen.st_size))
            except OSError:
                profiles.append(None)
        return hashlib.sha256(repr((name, selected, profiles)).encode()).hexdigest()
