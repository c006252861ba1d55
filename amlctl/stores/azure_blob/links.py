"""Links to single blobs that need no account: a shared access signature made by the SDK, for reading one blob.

It is signed with the account key, or with a user delegation key where there is only a login. Neither can be taken back
by itself, so what is linked is a copy: deleting it ends the links.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from azure.core.exceptions import HttpResponseError

from amlctl.azure_access.transport import Transport
from amlctl.errors import RightsError, SettingsError, UsageError
from amlctl.stores.azure_blob.address import BlobAddress
from amlctl.stores.azure_blob.credentials import AccountKey, Credential, Token
from amlctl.stores.azure_blob.direct import VERSION
from amlctl.stores.azure_blob.upload import Uploader

_DELEGATION_LASTS = timedelta(days=7)
_CLOCKS_DIFFER = timedelta(minutes=5)


class BlobLinks:
    """Satisfies `stores.contract.Links`."""

    def __init__(
        self, address: BlobAddress, credential: Credential, uploader: Uploader, transport: Transport, until: datetime
    ) -> None:
        self._address = address
        self._uploader = uploader
        self._transport = transport
        self.until = until
        self._signing = self._signed_with(credential.for_links())

    def copy(self, source: str, key: str) -> None:
        self._uploader.copy(source, key)

    def link(self, key: str, media_type: str) -> str:
        from azure.storage.blob import BlobSasPermissions, generate_blob_sas

        address = self._address
        token = generate_blob_sas(
            address.account,
            address.container,
            address.prefix + key,
            permission=BlobSasPermissions(read=True),
            expiry=self.until,
            content_type=media_type,
            content_disposition="inline",
            protocol="https" if address.is_https else None,
            **self._signing,
        )
        return f"{address.origin}{address.blob_path(key)}?{token}"

    def _signed_with(self, credential: Credential) -> dict[str, Any]:
        if isinstance(credential, AccountKey):
            return {"account_key": credential.key}
        if isinstance(credential, Token):
            return {"user_delegation_key": self._delegation_key(credential)}
        raise SettingsError(
            "a SAS token cannot sign links to single files",
            hint="set AZURE_STORAGE_KEY, or unset the token and az login",
        )

    def _delegation_key(self, credential: Token) -> Any:
        from azure.storage.blob import BlobServiceClient

        now = datetime.now(UTC)
        if self.until - now > _DELEGATION_LASTS:
            raise UsageError(
                "links that a login signs hold for 7 days at most", hint="use --expires 7d, or set AZURE_STORAGE_KEY"
            )
        # The service counts the 7 days by its own clock.
        self.until = min(self.until, now + _DELEGATION_LASTS - _CLOCKS_DIFFER)
        client = BlobServiceClient(
            self._address.account_url, credential=credential.for_sdk, transport=self._transport, api_version=VERSION
        )
        try:
            return client.get_user_delegation_key(now - _CLOCKS_DIFFER, self.until)
        except HttpResponseError as error:
            raise RightsError(
                f"the service gives this login no key to sign links with ({error.status_code})",
                hint=f"it requires the role Storage Blob Delegator on the account {self._address.account}",
            ) from error
