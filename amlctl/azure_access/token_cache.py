"""Tokens on disk, so that the next command need not log in again: with the az CLI that takes a second each time.

One file (0600) in the user's own cache folder (0700), as the az CLI itself keeps its tokens. A token is found only
by who asks in the same way: the variables that choose a login, and the profile that `az login`, `az logout` and
`az account set` write, are part of its name.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from amlctl.localfs.atomic import write_bytes

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
