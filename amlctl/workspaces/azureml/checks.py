"""What `doctor` tries out of an Azure ML workspace: login, tenant, workspace, clock, rights, quota. Nothing is changed
there; what is remembered here of a workspace that was made anew is forgotten.

Rights are read from ARM's list of what the login may do at a scope (Microsoft.Authorization, permissions, 2022-04-01);
quotas and families of sizes from the location of the workspace (2023-08-01-preview).
"""

from __future__ import annotations

import base64
import binascii
import email.utils
import fnmatch
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from amlctl.core.check import Check
from amlctl.core.compute import ClusterTarget
from amlctl.errors import AmlctlError, ServiceUnavailable
from amlctl.workspaces.azureml.connection import WORKSPACE_VERSION, Connection, Facts
from amlctl.workspaces.azureml.datastores import default_datastore

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
_USEFUL = {"make clusters": f"{_PREFIX}/computes/write", "delete clusters": f"{_PREFIX}/computes/delete"}


def checks(connection: Connection, target: ClusterTarget | None) -> Iterator[Check]:
    """In order; one without which nothing further can be tried ends it. `target` is the one that runs use."""
    place, name = connection.place, "login"
    try:
        yield _login(connection)
        name = "workspace"
        answer = connection.workspace("GET", "", WORKSPACE_VERSION)
        is_another = _forget_another(connection, answer.document or {})
        facts = connection.facts
    except AmlctlError as error:
        yield Check("login" if error.kind == "login" else name, False, error.message, error.hint)
        return
    anew = "; it was made anew, so what was known of it is forgotten" if is_another else ""
    yield Check("workspace", True, f"{place.shown} in {facts.location}{anew}")
    yield _clock(answer.headers)
    for name, action in (("rights", _rights), ("datastore", _datastore), ("quota", lambda c: _quota(c, facts, target))):
        try:
            yield action(connection)
        except AmlctlError as error:
            yield Check(name, False, error.message, error.hint)
    with suppress(AmlctlError):  # the datastore's own check has said it
        yield from _identity(connection, target)


def _forget_another(connection: Connection, document: Mapping[str, Any]) -> bool:
    """One that was deleted and made again under its name has other storage: what is remembered would lead astray."""
    known = (connection.memory.get("facts") or {}).get("workspace_id")
    there = (document.get("properties") or {}).get("workspaceId")
    is_another = bool(known and there) and known != there
    if is_another:
        connection.memory.clear()
    return is_another


def _login(connection: Connection) -> Check:
    """Raises LoginError."""
    place = connection.place
    said = _claims(connection.login.token(place.cloud.audience))
    who = next((str(said[name]) for name in ("upn", "unique_name", "appid", "oid") if said.get(name)), "somebody")
    tenant = str(said.get("tid") or "")
    if place.tenant_id and tenant and tenant != place.tenant_id:
        told = f"{who} is logged in to tenant {tenant}, and the settings name {place.tenant_id}"
        return Check("login", False, told, f"az login --tenant {place.tenant_id}")
    return Check("login", True, f"{who}" + (f", tenant {tenant}" if tenant else ""))


def _clock(headers: Mapping[str, str]) -> Check:
    name = "cloud clock"
    try:
        ahead_s = time.time() - email.utils.parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (TypeError, ValueError):
        return Check(name, True, "the service does not tell its time")
    if abs(ahead_s) <= _CLOCK_LIMIT_S:
        return Check(name, True, "this machine's clock agrees with Azure's")
    told = f"this machine's clock is {abs(ahead_s) / 60:.0f} minutes {'ahead of' if ahead_s > 0 else 'behind'} Azure's"
    return Check(name, False, told, "set the clock: sudo timedatectl set-ntp true")


def _rights(connection: Connection) -> Check:
    """Raises ServiceUnavailable and the like."""
    path = "/providers/Microsoft.Authorization/permissions"
    answer = connection.workspace("GET", path, _PERMISSIONS_VERSION, accept=(403, 404))
    if answer.status >= 400:
        return Check("rights", True, "the workspace can be read; what else is allowed is not told")
    granted = (answer.document or {}).get("value") or []
    missing = [what for what, action in _NEEDED.items() if not _may(granted, action)]
    if missing:
        return Check(
            "rights",
            False,
            f"no right to {', '.join(missing)} in {connection.place.workspace_name}",
            "ask for the role AzureML Data Scientist on the workspace",
        )
    without = [what for what, action in _USEFUL.items() if not _may(granted, action)]
    return Check("rights", True, "may submit runs" + (f"; may not {' or '.join(without)}" if without else ""))


def _may(granted: list[Any], action: str) -> bool:
    """As ARM decides: some grant names the action and does not take it back."""
    return any(
        _names(grant.get("actions"), action) and not _names(grant.get("notActions"), action) for grant in granted
    )


def _names(patterns: Any, action: str) -> bool:
    # The built-in roles write `computes/*/write` for what includes `computes/write`.
    texts = [text for pattern in patterns or () for text in (str(pattern), str(pattern).replace("/*/", "/"))]
    return any(fnmatch.fnmatchcase(action.lower(), text.lower()) for text in texts)


def _datastore(connection: Connection) -> Check:
    """The one that is the default now, whatever is remembered. Raises SettingsError, RightsError and the like."""
    before = connection.memory.get("datastore") or {}
    connection.memory.forget("datastore")
    found = default_datastore(connection)
    kind = "by login" if found.is_identity_based else "by key"
    was = str(before.get("name") or found.name)
    changed = f"; it was {was} until now, and what was synced there stays there" if was != found.name else ""
    return Check("datastore", True, f"{found.name}: container {found.container} of {found.account}, {kind}{changed}")


def _identity(connection: Connection, target: ClusterTarget | None) -> Iterator[Check]:
    """Where the default datastore has no key: which identity jobs use to reach it, and the role that it needs."""
    found = default_datastore(connection)
    if not found.is_identity_based:
        return
    name, role = "identity", f"the role Storage Blob Data Contributor on the storage account {found.account}"
    if connection.identity == "user_identity":
        yield Check(name, True, f"jobs read and write {found.name} as you, who need {role}")
        return
    shown = "the compute target" if target is None else target.name
    if target is not None and not connection.identity:
        answer = connection.workspace("GET", f"/computes/{target.name}", _SIZES_VERSION, accept=(403, 404))
        if answer.status < 400 and not (answer.document or {}).get("identity"):
            yield Check(
                name,
                False,
                f"datastore {found.name} has no key, and {shown} no managed identity to reach it with",
                f'identity = "user_identity" in [workspaces.{connection.place.name}], or a cluster with an identity',
            )
            return
    yield Check(name, True, f"jobs read and write {found.name} as the managed identity of {shown}, which needs {role}")


def _quota(connection: Connection, facts: Facts, target: ClusterTarget | None) -> Check:
    """Cores that are left for the most nodes that the target may have: of the size's family, and of all together."""
    name = "quota"
    if target is None or not target.size:
        return Check(name, True, "no cluster is named as default_compute")
    location = target.location or facts.location
    lists: list[list[Any]] = []
    for path in ("vmSizes", "usages"):
        place = f"/providers/Microsoft.MachineLearningServices/locations/{location}/{path}"
        answer = connection.subscription("GET", place, _SIZES_VERSION, accept=(403,))
        if answer.status == 403:  # a role on the workspace alone, which is enough for runs
            return Check(name, True, f"{target.size}: this login may not see the quotas of the subscription")
        lists.append((answer.document or {}).get("value") or [])
    sizes, usages = lists
    size = next((one for one in sizes if _is(one.get("name"), target.size)), None)
    if size is None:
        told = f"{location} has no size {target.size}, which compute target {target.name} wants"
        return Check(name, False, told, f"az ml compute list-sizes --location {location} -o table")
    family, each = str(size.get("family") or ""), size.get("vCPUs")
    if not isinstance(each, int) or each < 1:
        raise ServiceUnavailable("the sizes of the location cannot be read", hint="try again in a minute")
    limits = _limits(usages, family, is_low_priority=target.tier == "low_priority")
    if not limits:
        return Check(name, True, f"{target.size}: no limit is told for {family}")
    held = each * _present_nodes(connection, target)
    of, limit, used = min(limits, key=lambda one: one[1] - one[2])
    free, nodes = limit - max(0, used - held), target.max_instances or 1
    told = f"{target.size}: {free} of {limit} cores of {of} are free, a node takes {each}"
    if free >= each * nodes:
        return Check(name, True, told)
    if free >= each:
        return Check(name, True, f"{told}: {free // each} of the {nodes} nodes of {target.name}")
    return Check(name, False, told, "Azure portal, Quotas, Machine learning: ask for more")


def _limits(usages: list[Any], family: str, *, is_low_priority: bool) -> list[tuple[str, int, int]]:
    """Name, cores, and cores in use, of all limits that count for a size. A family has the same name for both tiers,
    and less than nothing stands for no limit."""
    total, others = ("TotalLowPriorityCores", "dedicatedcores") if is_low_priority else _DEDICATED
    found = []
    for usage in usages:
        name, limit = str((usage.get("name") or {}).get("value") or ""), usage.get("limit")
        is_meant = _is(name, total) or (_is(name, family) and others not in str(usage.get("type") or "").lower())
        is_of_a_workspace = "/workspaces/" in str(usage.get("id") or "").lower()
        if is_meant and not is_of_a_workspace and isinstance(limit, int) and limit >= 0:
            found.append((name, limit, int(usage.get("currentValue") or 0)))
    return found


_DEDICATED = ("TotalDedicatedCores", "lowprioritycores")


def _present_nodes(connection: Connection, target: ClusterTarget) -> int:
    """Those that the target has by now: their cores are in use, and no others are needed."""
    answer = connection.workspace("GET", f"/computes/{target.name}", _SIZES_VERSION, accept=(403, 404))
    inner = ((answer.document or {}).get("properties") or {}).get("properties") or {}
    return int(inner.get("currentNodeCount") or 0)


def _is(one: Any, other: Any) -> bool:
    return str(one or "").lower() == str(other or "").lower()


def _claims(token: str) -> Mapping[str, Any]:
    """What a token says of its owner; nothing where it is opaque. It is not verified: that is the service's matter."""
    try:
        middle = token.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4)))
    except (IndexError, binascii.Error, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
