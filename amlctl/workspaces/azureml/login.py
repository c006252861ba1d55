"""Who asks: tokens of DefaultAzureCredential, kept until shortly before they run out."""

from __future__ import annotations

import logging
import time
from threading import Lock
from typing import TYPE_CHECKING

from amlctl.errors import LoginError
from amlctl.workspaces.azureml.place import Place

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

_RENEW_BEFORE_S = 300


class Login:
    """Thread-safe. `azure.identity` is imported with the first token."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._credential: TokenCredential | None = None
        self._tokens: dict[str, tuple[str, float]] = {}
        self._lock = Lock()

    def token(self, audience: str, *, claims: str = "", is_fresh: bool = False) -> str:
        """A bearer token for `audience`; one that was asked for with `claims`, or afresh, is a new one.

        Raises LoginError.
        """
        with self._lock:
            token, expires_at_s = self._tokens.get(audience, ("", 0.0))
            if claims or is_fresh or time.time() >= expires_at_s - _RENEW_BEFORE_S:
                token, expires_at_s = self._ask(audience, claims)
                self._tokens[audience] = token, expires_at_s
            return token

    def _ask(self, audience: str, claims: str) -> tuple[str, float]:
        from azure.core.exceptions import AzureError
        from azure.identity import DefaultAzureCredential

        place = self._place
        if self._credential is None:
            # Its page on every login that was tried would stand above our one line.
            logging.getLogger("azure.identity").addHandler(logging.NullHandler())
            self._credential = DefaultAzureCredential(
                authority=place.cloud.authority,
                additionally_allowed_tenants=[place.tenant_id] if place.tenant_id else [],
            )
        try:
            token = self._credential.get_token(
                f"{audience}/.default", claims=claims or None, tenant_id=place.tenant_id or None
            )
        except AzureError as error:
            tenant = f" --tenant {place.tenant_id}" if place.tenant_id else ""
            raise LoginError(
                f"nobody is logged in to Azure for {place.shown}: {str(error).splitlines()[0]}",
                hint=f"az login{tenant}",
            ) from error
        return token.token, float(token.expires_on)
