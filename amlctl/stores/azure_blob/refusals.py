"""Refusals of the Blob service in words: what was refused, why, and what to do about it.

Codes: https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes, and
https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes for the reasons of a 403.
"""

from __future__ import annotations

import time

from amlctl.azure_access.http import seconds_of
from amlctl.azure_access.network_errors import refused_by_proxy
from amlctl.azure_access.retry import RETRIED_STATUSES
from amlctl.core.message import AGAIN, Command, Message
from amlctl.errors import AmlctlError, Conflict, LoginError, NotFound, RightsError, ServiceUnavailable
from amlctl.stores.azure_blob.address import BlobAddress
from amlctl.stores.azure_blob.answer import DAMAGED_ON_THE_WAY, BlobAnswer
from amlctl.stores.azure_blob.credentials import Credential

_SKEW_S = 15 * 60
"""The service refuses a signed date that differs more than this from its own clock."""
_LOGIN_CODES = frozenset({"AuthenticationFailed", "InvalidAuthenticationInfo"})
_NO_RIGHT = {
    "KeyBasedAuthenticationNotPermitted": (
        "account {account} accepts no keys, and no SAS token that was signed with one",
        "az login, and unset AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN and AZURE_STORAGE_CONNECTION_STRING; where the "
        "key comes from the workspace: az ml workspace update --system-datastores-auth-mode identity",
    ),
    "AuthorizationSourceIPMismatch": ("the SAS token is not for the address of this machine", ""),
    "AuthorizationProtocolMismatch": ("the SAS token requires https", ""),
    "AuthorizationServiceMismatch": ("the SAS token is not for blobs", ""),
    "AuthorizationResourceTypeMismatch": ("the SAS token is not for containers and what is in them", ""),
    "PublicAccessNotPermitted": ("account {account} has no public data", "az login"),
    "AccountIsDisabled": ("account {account} is disabled", "ask the owner of the subscription, which may be unpaid"),
    "InsufficientAccountPermissions": ("account {account} is read-only", "use the address of its primary region"),
}
"""Why, and what to do (empty: what the credential suggests), whatever the credential."""
_LOCKED = {
    "BlobArchived": (
        "is in the archive tier",
        "az storage blob set-tier --tier Hot; run the same command again hours later",
    ),
    "BlobBeingRehydrated": ("is leaving the archive tier", "run the same command again in some hours"),
    "BlobImmutableDueToPolicy": ("is kept by a policy", "use a container without an immutability policy"),
    "BlobImmutableDueToLegalHold": ("is kept by a legal hold", "use a container without one"),
    "DirectoryIsNotEmpty": ("is a folder with files", "delete the folder, if it is not needed"),
    "LeaseIdMissing": ("is leased by another program", "az storage blob lease break, if the lease is not needed"),
    "SnapshotsPresent": ("has snapshots", "az storage blob delete --delete-snapshots only, if they are not needed"),
    "InvalidBlobType": ("is a page or append blob of another program", "az storage blob delete, if it is not needed"),
}
"""409 and 412 that are not caused by another writer, so retrying does not help."""
_RACES = frozenset(
    {
        *("ConditionNotMet", "TargetConditionNotMet", "SourceConditionNotMet"),
        *("BlobAlreadyExists", "ContainerAlreadyExists", "BlobModifiedWhileReading"),
    }
)


def refusal(answer: BlobAnswer, key: str, address: BlobAddress, credential: Credential) -> AmlctlError:
    """The error of a request for the value of `key` (empty: for the store itself)."""
    thing = f"{key} in {address.url}" if key else f"the store {address.url}"
    status, code = answer.status, answer.code
    if code in _NO_RIGHT:
        why, remedy = _NO_RIGHT[code]
        why = why.format(account=address.account)
        return RightsError(f"No right to use {thing} ({code}): {why}", hint=remedy or credential.remedy())
    if status in (401, 403):
        return _denied(answer, thing, address.account, credential)
    if status in RETRIED_STATUSES or code == DAMAGED_ON_THE_WAY:
        failed = f"the service failed at {thing}: {status} {code} {answer.request}".rstrip()
        again = Message(AGAIN, "; nothing that arrived is lost")
        return ServiceUnavailable(f"{failed} ({answer.attempts})", hint=again)
    if code == "ContainerBeingDeleted":
        deleted = f"the container {address.container} of account {address.account} is being deleted"
        return ServiceUnavailable(deleted, hint="try again in a minute")
    if status == 404 and code == "ContainerNotFound":
        return NotFound(
            f"Container {address.container} not found in account {address.account}",
            hint="check the store's URL; the first sync creates the container",
        )
    if status == 404:
        return NotFound(f"{thing} not found", hint=Message(Command("store", "verify"), " lists what is missing"))
    if status in (409, 412):
        if code in _LOCKED:
            what, hint = _LOCKED[code]
            return Conflict(f"{thing} {what} ({code})", hint=hint)
        if status == 412 or code in _RACES:
            return Conflict(f"{thing} was changed by someone else ({code or status})", hint="run the command again")
        why = f"{answer.message()} ({code or status}) {answer.request}".strip()
        return Conflict(f"the service refused {thing}: {why}", hint="look at it in the portal or in Storage Explorer")
    if status == 407:
        return refused_by_proxy(answer.host, "407 Proxy Authentication Required")
    return ServiceUnavailable(
        f"the service refused {thing}: {status} {code} {answer.message()} {answer.request}".strip(),
        hint="this is likely an internal error of amlctl: report it with this line",
    )


def _denied(answer: BlobAnswer, thing: str, account: str, credential: Credential) -> AmlctlError:
    theirs = seconds_of(answer.headers.get("date", ""))
    skew_s = 0.0 if theirs is None else theirs - time.time()
    if abs(skew_s) > _SKEW_S / 3 and answer.code in _LOGIN_CODES:
        return LoginError(
            f"the service refused the request: this machine's clock is {abs(skew_s) / 60:.0f} minutes "
            f"{'behind' if skew_s > 0 else 'ahead'}",
            hint="set the clock (sudo timedatectl set-ntp true), then run it again",
        )
    why = credential.explain()
    if answer.status == 401 or answer.code in _LOGIN_CODES or credential.out_of_time():
        return LoginError(f"the service does not accept the credentials for {thing}: {why}", hint=credential.remedy())
    remedy = credential.remedy()
    if answer.code == "AuthorizationFailure":
        why = f"most likely the network rules of account {account} do not admit this machine; otherwise {why}"
        remedy = (
            "use the network that they admit (a VPN, perhaps), or add this machine on the portal's Networking page; "
            f"otherwise {remedy}"
        )
    return RightsError(f"No right to use {thing} ({answer.code or answer.status}): {why}", hint=remedy)
