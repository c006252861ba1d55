"""Who asks: tokens of DefaultAzureCredential, kept until shortly before they run out."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from amlctl.errors import LoginError, SettingsError
from amlctl.localfs.atomic import write_bytes

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, TokenCredential

_RENEW_BEFORE_S = 300


class Login:
    """Thread-safe. `azure.identity` is imported where no kept token will do: that, and its asking, takes a second."""

    def __init__(
        self,
        *,
        authority: str = "",
        tenant_id: str = "",
        purpose: str = "",
        otherwise: str = "",
    ) -> None:
        """`purpose` says in errors what the login is for; `otherwise` what would do instead of one."""
        self._authority = authority
        self._tenant_id = tenant_id
        self._purpose = purpose
        self._otherwise = otherwise
        self._credential: TokenCredential | None = None
        self._cache = TokenCache(os.environ)  # where `azure.identity` looks as well
        self._tokens: dict[str, tuple[str, float]] = {}
        self._lock = Lock()

    def token(self, audience: str, *, claims: str = "", is_fresh: bool = False) -> str:
        """A bearer token for `audience`; one that was asked for with `claims`, or afresh, is a new one.

        Raises LoginError, SettingsError.
        """
        return self.token_until(audience, claims=claims, is_fresh=is_fresh)[0]

    def token_until(self, audience: str, *, claims: str = "", is_fresh: bool = False) -> tuple[str, float]:
        """As `token`, and when it runs out, in seconds since 1970."""
        name = " ".join((self._authority, self._tenant_id, audience))
        with self._lock:
            if claims or is_fresh:
                found = None
                if is_fresh:
                    self._credential = None  # it would hand out again what it keeps itself
            else:
                found = _lasting(self._tokens.get(audience)) or _lasting(self._cache.get(name))
            if found is None:
                found = self._ask(audience, claims)
                self._cache.keep(name, *found)
            self._tokens[audience] = found
            return found

    def _ask(self, audience: str, claims: str) -> tuple[str, float]:
        from azure.core.exceptions import AzureError
        from azure.identity import DefaultAzureCredential

        try:
            if self._credential is None:
                # Its page on every login that was tried would stand above our one line.
                logging.getLogger("azure.identity").addHandler(logging.NullHandler())
                self._credential = DefaultAzureCredential(
                    **({"authority": self._authority} if self._authority else {}),
                    additionally_allowed_tenants=[self._tenant_id] if self._tenant_id else [],
                )
            token = self._credential.get_token(
                f"{audience}/.default", claims=claims or None, tenant_id=self._tenant_id or None
            )
        except AzureError as error:
            tenant = f" --tenant {self._tenant_id}" if self._tenant_id else ""
            raise LoginError(
                f"nobody is logged in to Azure{self._purpose}: {str(error).splitlines()[0]}",
                hint=f"az login{tenant}{self._otherwise}",
            ) from error
        except ValueError as error:  # a tenant that is none, a login by a name that there is not
            raise SettingsError(
                f"the login to Azure is not set up right: {str(error).splitlines()[0]}",
                hint="check tenant_id in .amlctl.toml, and the variables AZURE_TOKEN_CREDENTIALS and AZURE_TENANT_ID",
            ) from error
        return token.token, float(token.expires_on)


def _lasting(found: tuple[str, float] | None) -> tuple[str, float] | None:
    return found if found is not None and time.time() < found[1] - _RENEW_BEFORE_S else None


class LoginCredential:
    """The login as clients and policies of the SDKs take it (`azure.core.credentials.TokenCredential`)."""

    def __init__(self, login: Login) -> None:
        self._login = login

    def get_token(self, *scopes: str, claims: str | None = None, tenant_id: str | None = None, **_: Any) -> AccessToken:
        """Raises LoginError, SettingsError. `tenant_id` is the login's own business."""
        from azure.core.credentials import AccessToken

        token, expires_at_s = self._login.token_until(scopes[0].removesuffix("/.default"), claims=claims or "")
        return AccessToken(token, int(expires_at_s))


_PREFIXES = ("AZURE_", "IDENTITY_", "MSI_", "IMDS_")
_PROFILES = (
    ("AZURE_CONFIG_DIR", "~/.azure", "azureProfile.json"),
    ("AZURE_CONFIG_DIR", "~/.azure", "AzureRmContext.json"),
    ("AZD_CONFIG_DIR", "~/.azd", "auth.json"),
)
"""Variable and usual folder of what a tool writes when another login is chosen."""
_MOST = 50


class TokenCache:
    """Losing it costs a login. Of two processes the last writer wins."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables

    def get(self, name: str) -> tuple[str, float] | None:
        """A token and when it runs out (seconds since 1970), as it was kept; None where there is none."""
        found = self._read().get(self._key(name))
        if isinstance(found, list) and len(found) == 2 and isinstance(found[0], str):
            with suppress(TypeError, ValueError):
                return found[0], float(found[1])
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
            write_bytes(path, json.dumps(dict(list(kept.items())[-_MOST:])).encode(), mode=0o600)

    def _read(self) -> dict[str, object]:
        with suppress(OSError, ValueError):
            found = json.loads(self._path().read_bytes())
            if isinstance(found, dict):
                return found
        return {}

    def _path(self) -> Path:
        from platformdirs import user_cache_path

        return user_cache_path("amlctl") / "login" / "tokens.json"

    def _key(self, name: str) -> str:
        """Nothing of the variables can be read from it."""
        chosen = sorted((key, value) for key, value in self._variables.items() if key.startswith(_PREFIXES))
        return hashlib.sha256(repr((name, chosen, self._profiles())).encode()).hexdigest()

    def _profiles(self) -> list[tuple[int, int] | None]:
        found: list[tuple[int, int] | None] = []
        for variable, usual, file in _PROFILES:
            folder = self._variables.get(variable) or os.path.expanduser(usual)
            try:
                seen = os.stat(os.path.join(folder, file))
                found.append((seen.st_mtime_ns, seen.st_size))
            except OSError:
                found.append(None)
        return found
