"""`doctor` for an Azure ML workspace: login, tenant, workspace, clock, rights, quota. Nothing is changed there; what is
remembered here about a workspace that was deleted and created again is forgotten.

Rights come from ARM's list of what the login may do at a scope (Microsoft.Authorization, permissions, 2022-04-01);
quotas and families of sizes from the location of the workspace (2023-08-01-preview).
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from amlctl.azure_access.http import seconds_of
from amlctl.core.compute import ClusterTarget
from amlctl.errors import AmlctlError, ServiceUnavailable
from amlctl.workspaces.azureml.connection import WORKSPACE_VERSION, Connection, Facts
from amlctl.workspaces.azureml.datastores import default_datastore
from amlctl.workspaces.azureml.documents import as_object, whole
from amlctl.workspaces.contract import Check

_PERMISSIONS_VERSION = "2022-04-01"
_SIZES_VERSION = "2023-08-01-preview"
_CLOCK_LIMIT_S = 240.0
"""Tokens and signatures are refused at five minutes."""
_PREFIX = "Microsoft.MachineLearningServices/workspaces"
_NEEDED = {
    "submit runs": f"{_PREFIX}/jobs/write",
    "register code": f"{_PREFIX}/codes/versions/write",
    "register environments": f"{_PREFIX}/environments/versions/write",
}
_USEFUL = {"create clusters": f"{_PREFIX}/computes/write", "delete clusters": f"{_PREFIX}/computes/delete"}


def checks(connection: Connection, target: ClusterTarget | None) -> Iterator[Check]:
    """In order, until a failure that makes the rest pointless. `target` is the one that runs use."""
    address, name = connection.address, "login"
    try:
        yield _login(connection)
        name = "workspace"
        answer = connection.workspace("GET", "", WORKSPACE_VERSION)
        is_another = _forget_another(connection, answer.document)
        facts = connection.facts
    except AmlctlError as error:
        yield Check("login" if error.kind == "login" else name, False, error.message, error.hint)
        return
    change = "; it was created again, so the local cache of it was cleared" if is_another else ""
    yield Check("workspace", True, f"{address.shown} in {facts.location}{change}")
    yield _clock(answer.headers)
    for name, action in (("rights", _rights), ("datastore", _datastore), ("quota", lambda c: _quota(c, facts, target))):
        try:
            yield action(connection)
        except AmlctlError as error:
            yield Check(name, False, error.message, error.hint)
    with suppress(AmlctlError):  # the check of the datastore reports it
        yield from _identity(connection, target)


def _forget_another(connection: Connection, document: Mapping[str, Any]) -> bool:
    """A workspace that was deleted and created again has other storage, so the cache of it is wrong."""
    known = connection.memory.value("facts", "workspace_id")
    current = (document.get("properties") or {}).get("workspaceId")
    is_another = bool(known and current) and known != current
    if is_another:
        connection.memory.clear()
    return is_another


def _login(connection: Connection) -> Check:
    """Raises LoginError."""
    address = connection.address
    claims = _claims(connection.login.token(address.cloud.audience).token)
    user = next((str(claims[name]) for name in ("upn", "unique_name", "appid", "oid") if claims.get(name)), "logged in")
    tenant = str(claims.get("tid") or "")
    if address.tenant_id and tenant and tenant != address.tenant_id:
        problem = f"{user} is logged in to tenant {tenant}, and the settings name {address.tenant_id}"
        return Check("login", False, problem, f"az login --tenant {address.tenant_id}")
    return Check("login", True, user + (f", tenant {tenant}" if tenant else ""))


def _clock(headers: Mapping[str, str]) -> Check:
    name = "cloud clock"
    theirs_s = seconds_of(headers.get("date", ""))
    if theirs_s is None:
        return Check(name, True, "the service does not return its time")
    ahead_s = time.time() - theirs_s
    if abs(ahead_s) <= _CLOCK_LIMIT_S:
        return Check(name, True, "this machine's clock agrees with Azure's")
    problem = (
        f"this machine's clock is {abs(ahead_s) / 60:.0f} minutes {'ahead of' if ahead_s > 0 else 'behind'} Azure's"
    )
    return Check(name, False, problem, "set the clock: sudo timedatectl set-ntp true")


def _rights(connection: Connection) -> Check:
    """Raises ServiceUnavailable and the like."""
    path = "/providers/Microsoft.Authorization/permissions"
    answer = connection.workspace("GET", path, _PERMISSIONS_VERSION, accept=(403, 404))
    if answer.status >= 400:
        return Check("rights", True, "the workspace can be read; further rights are unknown")
    granted = connection.listed(answer)
    missing = [what for what, action in _NEEDED.items() if not _may(granted, action)]
    if missing:
        return Check(
            "rights",
            False,
            f"No right to {', '.join(missing)} in {connection.address.workspace_name}",
            "ask for the role AzureML Data Scientist on the workspace",
        )
    without = [what for what, action in _USEFUL.items() if not _may(granted, action)]
    return Check("rights", True, "may submit runs" + (f"; may not {' or '.join(without)}" if without else ""))


def _may(granted: list[Any], action: str) -> bool:
    """Like ARM: a grant has the action and does not exclude it."""
    return any(
        _names(grant.get("actions"), action) and not _names(grant.get("notActions"), action) for grant in granted
    )


def _names(patterns: Any, action: str) -> bool:
    # The built-in roles have `computes/*/write`, which includes `computes/write`.
    texts = [text for pattern in patterns or () for text in (str(pattern), str(pattern).replace("/*/", "/"))]
    return any(fnmatch.fnmatchcase(action.lower(), text.lower()) for text in texts)


def _datastore(connection: Connection) -> Check:
    """The current default, not the remembered one. Raises SettingsError, RightsError and the like."""
    before = connection.memory.value("datastore", "name")
    connection.memory.forget("datastore")
    found = default_datastore(connection)
    kind = "by login" if found.is_identity_based else "by key"
    was = str(before or found.name)
    changed = f"; it was {was} before, and data synced there stays there" if was != found.name else ""
    return Check("datastore", True, f"{found.name}: container {found.container} of {found.account}, {kind}{changed}")


def _identity(connection: Connection, target: ClusterTarget | None) -> Iterator[Check]:
    """If the default datastore has no key: the identity that jobs use for it, and the role that it requires."""
    found = default_datastore(connection)
    if not found.is_identity_based:
        return
    name, role = "identity", f"the role Storage Blob Data Contributor on the storage account {found.account}"
    if connection.identity == "user_identity":
        yield Check(name, True, f"jobs read and write {found.name} as you, which requires {role}")
        return
    shown = "the compute target" if target is None else target.name
    if target is not None and not connection.identity:
        answer = connection.workspace("GET", f"/computes/{target.name}", _SIZES_VERSION, accept=(403, 404))
        if answer.status < 400 and not answer.document.get("identity"):
            yield Check(
                name,
                False,
                f"datastore {found.name} has no key, and {shown} has no managed identity to access it",
                f'identity = "user_identity" in [workspaces.{connection.address.name}], or a cluster with an identity',
            )
            return
    yield Check(
        name, True, f"jobs read and write {found.name} as the managed identity of {shown}, which requires {role}"
    )


def _quota(connection: Connection, facts: Facts, target: ClusterTarget | None) -> Check:
    """Free cores for the maximal nodes of the target: of the size's family, and in total."""
    name = "quota"
    if target is None or not target.size:
        return Check(name, True, "default_compute is not a cluster")
    location = target.location or facts.location
    lists: list[list[Any]] = []
    for path in ("vmSizes", "usages"):
        full = f"/providers/Microsoft.MachineLearningServices/locations/{location}/{path}"
        answer = connection.subscription("GET", full, _SIZES_VERSION, accept=(403,))
        if answer.status == 403:  # a role on the workspace only, which is enough for runs
            return Check(name, True, f"{target.size}: this login may not see the quotas of the subscription")
        lists.append(connection.listed(answer))
    sizes, usages = lists
    size = next((one for one in sizes if _is(one.get("name"), target.size)), None)
    if size is None:
        problem = f"{location} has no size {target.size}, which compute target {target.name} requires"
        return Check(name, False, problem, f"az ml compute list-sizes --location {location} -o table")
    family, each = str(size.get("family") or ""), size.get("vCPUs")
    if not isinstance(each, int) or each < 1:
        raise ServiceUnavailable("the sizes of the location cannot be read", hint="try again in a minute")
    limits = _limits(usages, family, is_low_priority=target.tier == "low_priority")
    if not limits:
        return Check(name, True, f"{target.size}: the service returns no limit for {family}")
    held = each * _present_nodes(connection, target)
    of, limit, used = min(limits, key=lambda one: one[1] - one[2])
    free, nodes = limit - max(0, used - held), target.max_instances or 1
    message = f"{target.size}: {free} of {limit} cores of {of} are free, a node takes {each}"
    if free >= each * nodes:
        return Check(name, True, message)
    if free >= each:
        return Check(name, True, f"{message}: {free // each} of the {nodes} nodes of {target.name}")
    return Check(name, False, message, "Azure portal, Quotas, Machine learning: ask for more")


def _limits(usages: list[Any], family: str, *, is_low_priority: bool) -> list[tuple[str, int, int]]:
    """Name, cores, and used cores, of all limits that apply to a size. A family has the same name for both tiers, and a
    negative limit means unlimited."""
    total, others = ("TotalLowPriorityCores", "dedicatedcores") if is_low_priority else _DEDICATED
    found = []
    for usage in usages:
        name, limit = str(as_object(usage.get("name")).get("value") or ""), usage.get("limit")
        is_meant = _is(name, total) or (_is(name, family) and others not in str(usage.get("type") or "").lower())
        is_of_a_workspace = "/workspaces/" in str(usage.get("id") or "").lower()
        if is_meant and not is_of_a_workspace and isinstance(limit, int) and limit >= 0:
            found.append((name, limit, whole(usage.get("currentValue")) or 0))
    return found


_DEDICATED = ("TotalDedicatedCores", "lowprioritycores")


def _present_nodes(connection: Connection, target: ClusterTarget) -> int:
    """Nodes that the target has: their cores are in use already."""
    answer = connection.workspace("GET", f"/computes/{target.name}", _SIZES_VERSION, accept=(403, 404))
    inner = (answer.document.get("properties") or {}).get("properties") or {}
    return whole(inner.get("currentNodeCount")) or 0


def _is(one: Any, other: Any) -> bool:
    return str(one or "").lower() == str(other or "").lower()


def _claims(token: str) -> Mapping[str, Any]:
    """A token's claims about its owner; empty if it is opaque. The service verifies it, not we."""
    try:
        middle = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    except (IndexError, binascii.Error, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
