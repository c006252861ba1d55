"""Azure Resource Manager (ARM) and run history of one workspace: login, requests, lists, refusals in words, and a
memory from command to command."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from amlctl import __version__
from amlctl.azure_access.login import Login, login_with_claims
from amlctl.azure_access.network_errors import refused_by_proxy
from amlctl.core.events import EventSink, null_sink
from amlctl.core.message import Command, Message
from amlctl.core.settings import WorkspaceSettings
from amlctl.errors import AmlctlError, Conflict, LoginError, NotFound, RightsError, ServiceUnavailable, UsageError
from amlctl.localfs.atomic import read_json, write_json
from amlctl.localfs.project import Project
from amlctl.workspaces.azureml.address import WorkspaceAddress, workspace_address
from amlctl.workspaces.azureml.clients import Answer, Exchange, SDKClient
from amlctl.workspaces.azureml.documents import invalid_answer

if TYPE_CHECKING:
    from amlctl.stores.azure_blob.credentials import Credential

WORKSPACE_VERSION = "2024-10-01-preview"
_HEADERS = {"user-agent": f"amlctl/{__version__}", "accept": "application/json", "accept-encoding": "gzip"}
_WORKSPACE_NAME = re.compile(r"/workspaces/[^/']+'", re.IGNORECASE)
_AUTHORITY = re.compile(r'authorization_uri="https://[^/"]+/([0-9A-Fa-f-]{36})')
_CLAIMS = re.compile(r'claims="([^"]+)"')
_SECOND_FACTOR = re.compile(r"\bMFA\b|multi-?factor")
_VERBS = {"GET": "read", "PUT": "write", "PATCH": "change", "DELETE": "delete"}
_DOCTOR = Message(Command("doctor"), " checks the login, the workspace and its storage")
_MAX_REMEMBERED = 500
"""Names of each kind."""
_RULES = {
    "RequestDisallowedByPolicy": "change what the policy forbids, or ask who manages the policies of the subscription",
    "ScopeLocked": "remove the lock (az lock list shows it), or ask the owner of the subscription",
    "ReadOnlyDisabledSubscription": "ask the owner of the subscription, which is disabled",
}
"""What to do about rules of the subscription, which no role lifts."""


@dataclass(frozen=True)
class Facts:
    """Constant while a workspace exists. `history` is the address of run history."""

    history: str
    location: str
    tenant_id: str
    workspace_id: str


class Connection:
    """Thread-safe except for `memory`. Requests and login happen with the first call."""

    def __init__(
        self,
        settings: WorkspaceSettings,
        project: Project,
        variables: Mapping[str, str],
        *,
        sleep: Callable[[float], object] = time.sleep,
        tell: EventSink = null_sink,
    ) -> None:
        """`tell` gets an event for each retry. Raises SettingsError."""
        self.address: WorkspaceAddress = workspace_address(settings)
        cloud = self.address.cloud
        self.project = project
        self.memory = Memory(project, f"{cloud.resource_manager}{self.address.id}")
        self.login = Login(
            authority=cloud.authority,
            tenant_id=self.address.tenant_id,
            purpose=f" for {self.address.shown}",
            audiences={cloud.resource_manager: cloud.audience},  # also with an endpoint of one's own
        )
        self.exchange = Exchange(variables, self.login, cloud, sleep=sleep, tell=tell)
        self.sdk = SDKClient(self.address, self.login, self.exchange.sdk_transport)
        self.identity = settings.identity or ""
        self.variables = variables
        self.other_containers: set[tuple[str, str]] = set()
        """Containers without a datastore, as far as this command has asked; a datastore can be created at any time."""
        self.credentials: dict[str, Credential] = {}
        """Those of datastores, by name."""

    def close(self) -> None:
        """Close idle connections; the next request opens new ones."""
        self.exchange.close()

    def workspace(
        self,
        verb: str,
        path: str,
        version: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        accept: Collection[int] = (),
    ) -> Answer:
        """One request below the workspace's address; `path` begins with `/`, or is empty.

        Statuses of 400 and above are errors unless they are in `accept`.
        """
        return self._checked(verb, self._url(self.address.path + quote(path), version, query), body, accept)

    def subscription(self, verb: str, path: str, version: str, *, accept: Collection[int] = ()) -> Answer:
        """One request below the subscription: sizes and quotas of a location."""
        base = f"/subscriptions/{quote(self.address.subscription_id, safe='')}"
        return self._checked(verb, self._url(base + quote(path), version), None, accept)

    def history(
        self,
        verb: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        accept: Collection[int] = (),
    ) -> Answer:
        """One request to run history; `path` is below the workspace, such as `/runs/ID/details`."""
        text = f"?{urlencode(query, quote_via=quote, safe='$')}" if query else ""
        url = f"{self.facts.history}/history/v1.0{self.address.path}{quote(path)}{text}"
        return self._checked(verb, url, body, accept)

    def tracking(self, path: str, query: Mapping[str, str], *, accept: Collection[int] = ()) -> Answer:
        """One request to the workspace's MLflow server; `path` is below its API, such as `/runs/get`."""
        base = f"{self.facts.history}/mlflow/v1.0{self.address.path}/api/2.0/mlflow"
        return self._checked("GET", f"{base}{path}?{urlencode(query, quote_via=quote)}", None, accept)

    def follow(self, verb: str, url: str) -> Answer:
        """One request to an address from an answer: the next page, the state of an operation."""
        if not self.address.cloud.has_manager(url):
            raise ServiceUnavailable(
                f"Azure ML points to {urlsplit(url).netloc}, which must not get our login",
                hint="check the endpoint of the workspace in the settings",
            )
        return self._checked(verb, url, None, ())

    def pages(self, path: str, version: str, query: Mapping[str, str] | None = None) -> Iterator[list[Any]]:
        """The pages of a list; an empty page may be followed by another."""
        answer = self.workspace("GET", path, version, query=query)
        while True:
            yield self.listed(answer)
            following = answer.document.get("nextLink")
            if not following:
                return
            answer = self.follow("GET", str(following))

    def values(self, path: str, version: str, query: Mapping[str, str] | None = None) -> Iterator[Any]:
        """All items of a list."""
        for page in self.pages(path, version, query):
            yield from page

    def listed(self, answer: Answer) -> list[Any]:
        """The items of one page; a page without a list is not an empty list. Raises ServiceUnavailable."""
        found = answer.document.get("value")
        if not isinstance(found, list):
            raise invalid_answer("a list", "it has none")
        return found

    @property
    def facts(self) -> Facts:
        """Requested once, then remembered."""
        with suppress(TypeError):
            return Facts(**self.memory.get("facts"))
        document = self.workspace("GET", "", WORKSPACE_VERSION).document
        properties = document.get("properties") or {}
        discovery = str(properties.get("discoveryUrl") or "")
        hosts: Mapping[str, Any] = {}
        if discovery.startswith("https://"):
            answer = self.exchange.send("GET", discovery, _HEADERS)  # public: a login is not for this host
            if answer.status >= 400:
                raise self.error(answer, "GET", discovery)
            hosts = answer.document
        history = str(hosts.get("api") or hosts.get("history") or "").rstrip("/")
        if not history.startswith("https://"):
            raise ServiceUnavailable(
                f"the workspace {self.address.shown} does not return the address of its run history",
                hint=Message("try again; ", Command("doctor"), " checks the workspace"),
            )
        tenant_id, workspace_id = (str(properties.get(name) or "") for name in ("tenantId", "workspaceId"))
        found = Facts(history, str(document.get("location") or ""), tenant_id, workspace_id)
        self.memory.set("facts", asdict(found))
        return found

    def _url(self, path: str, version: str, query: Mapping[str, str] | None = None) -> str:
        text = urlencode({**(query or {}), "api-version": version}, quote_via=quote, safe="$")
        return f"{self.address.cloud.resource_manager}{path}?{text}"

    def _checked(self, verb: str, url: str, body: Any, accept: Collection[int]) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        headers = _HEADERS if data is None else {**_HEADERS, "content-type": "application/json"}
        answer = self.exchange.send(verb, url, headers, data, is_authorized=True)
        if _is_of_own_network(answer):
            self.memory.forget("facts")  # it has other addresses since it has a network of its own
        if answer.status >= 400 and (answer.status not in accept or answer.code in _RULES):
            raise self.error(answer, verb, url)
        is_without_document = verb != "GET" and answer.data.strip() in (b"", b"null", b"{}")
        if answer.status < 400 and answer.problem and not is_without_document:
            raise invalid_answer(self._thing(url), answer.problem)
        return answer

    def error(self, answer: Answer, verb: str, url: str) -> AmlctlError:
        """A refusal in words, with what to do now."""
        address, code, status = self.address, answer.code, answer.status
        thing = self._thing(url)
        if status < 400:
            return invalid_answer(thing, answer.problem or "it is not the expected one")
        if status == 407:
            return refused_by_proxy(
                urlsplit(url).hostname or urlsplit(address.cloud.resource_manager).hostname or "",
                "407 Proxy Authentication Required",
            )
        correlation = answer.correlation_id and f"correlation {answer.correlation_id}"
        details = ", ".join(part for part in (code, correlation) if part)
        why = (answer.message or f"status {status}") + (f" ({details})" if details else "")
        if _is_of_own_network(answer):
            return RightsError(
                f"The workspace {address.shown} is reached from its own network only: {why}",
                hint="use that network (a VPN, perhaps), or allow access on the Networking page of the portal",
            )
        if status == 401 or (status == 403 and _SECOND_FACTOR.search(answer.message)):
            return LoginError(
                f"Azure does not accept the login for {address.shown}: {why}", hint=self._login_hint(answer)
            )
        if status == 403 or code in _RULES:
            role = "AzureML Compute Operator" if thing.startswith("compute") else "AzureML Data Scientist"
            ask = f"ask for the role {role} on the workspace {address.workspace_name}, then az login again"
            return RightsError(f"No right to {_VERBS.get(verb, 'act on')} {thing}: {why}", hint=_RULES.get(code, ask))
        if status == 404 and is_workspace_missing(answer):
            check = "az account list -o table" if code == "SubscriptionNotFound" else "az ml workspace list -o table"
            return NotFound(
                f"Azure does not find the workspace {address.shown}: {why}",
                hint=f"check [workspaces.{address.name}] in the settings: {check}",
            )
        if status == 404:
            return NotFound(f"{thing} not found: {why}", hint=_DOCTOR)
        if status in (409, 412):
            return Conflict(f"Conflict with {thing}: {why}", hint="look at it in Studio, then run the command again")
        if status == 429:
            return ServiceUnavailable(f"Azure ML is throttling requests: {why}", hint="try again in a minute")
        if status >= 500 or status == 408:
            return ServiceUnavailable(f"Azure ML failed at {thing}: {why}", hint="try again in a minute")
        return UsageError(f"Azure ML refused {thing}: {why}", hint=_DOCTOR)

    def _login_hint(self, answer: Answer) -> str:
        """A subscription accepts only tokens of its own tenant, and its refusal names that tenant."""
        challenge, tenant = answer.headers.get("www-authenticate", ""), self.address.tenant_id
        if claims := _CLAIMS.search(challenge):
            return login_with_claims(tenant, self.address.cloud.audience, claims[1])
        found = _AUTHORITY.search(challenge)
        if found is None or answer.code != "InvalidAuthenticationTokenTenant":
            return f"az login --tenant {tenant}" if tenant else "az login"
        return f'az login --tenant {found[1]}, and tenant_id = "{found[1]}" in [workspaces.{self.address.name}]'

    def _thing(self, url: str) -> str:
        """`job train-1`, `environment amlctl-env version 1a2b`, or the workspace."""
        path, base = urlsplit(url).path, self.address.path
        at = path.lower().find(base.lower())
        parts = [part for part in path[at + len(base) :].split("/") if part] if at >= 0 else []
        if not parts:
            return f"workspace {self.address.shown}" if at >= 0 else path.rpartition("/")[2]
        pairs = zip(parts[::2], [*parts[1::2], ""], strict=False)
        return " ".join(f"{kind.removesuffix('s')} {name}".strip() for kind, name in pairs if name or len(parts) == 1)


def _is_of_own_network(answer: Answer) -> bool:
    """Whether the request came from outside of the workspace's private link. The status is 401, 403 or 502, by the part
    of the service that looks first."""
    return answer.status >= 400 and "private link" in answer.message


def is_workspace_missing(answer: Answer) -> bool:
    """Whether a 404 is about the workspace, or what contains it, rather than something in it."""
    if answer.code in ("SubscriptionNotFound", "ResourceGroupNotFound"):
        return True
    return answer.code == "ResourceNotFound" and _WORKSPACE_NAME.search(answer.message) is not None


class Memory:
    """What earlier commands learned about a workspace: constant addresses, assets that exist; no secrets.

    One JSON file per workspace below `.amlctl/cache/`; losing it costs a few requests. Not thread-safe; of two
    processes that write, the last one wins.
    """

    def __init__(self, project: Project, workspace_id: str) -> None:
        self._project = project
        # Settings that point to another workspace must not find its addresses.
        digest = hashlib.sha256(workspace_id.lower().encode()).hexdigest()[:16]
        self._path: Path = project.state_dir / "cache" / "azureml" / f"{digest}.json"
        self._facts: dict[str, dict[str, Any]] | None = None

    def get(self, kind: str) -> dict[str, Any]:
        """By name; empty if nothing is known."""
        return self._read().get(kind, {})

    def value(self, kind: str, name: str) -> Any:
        """None if it is unknown."""
        return self.get(kind).get(name)

    def set(self, kind: str, values: Mapping[str, Any]) -> None:
        self._facts = None  # keep what another process has written meanwhile
        self._write({**self._read(), kind: dict(values)})

    def add(self, kind: str, name: str, value: Any = True) -> None:
        others = [one for one in self.get(kind).items() if one[0] != name]
        self.set(kind, dict([*others, (name, value)][-_MAX_REMEMBERED:]))

    def forget(self, *kinds: str) -> None:
        self._facts = None
        self._write({kind: values for kind, values in self._read().items() if kind not in kinds})

    def clear(self) -> None:
        self._write({})

    def _read(self) -> dict[str, dict[str, Any]]:
        if self._facts is None:
            self._facts = {}
            with suppress(OSError, AmlctlError):
                found = read_json(self._path)
                if isinstance(found, Mapping):  # a damaged fact counts as unknown
                    self._facts = {kind: value for kind, value in found.items() if _is_fact(value)}
        return self._facts

    def _write(self, facts: dict[str, dict[str, Any]]) -> None:
        self._facts = facts
        with suppress(OSError, AmlctlError):  # without it, later commands ask again
            self._project.ensure_state_dir()
            write_json(self._path, facts)


def _is_fact(value: Any) -> bool:
    """Texts and flags by name, or tables of them by name."""
    return isinstance(value, dict) and all(
        isinstance(one, (str, bool))
        or (isinstance(one, dict) and all(isinstance(x, (str, bool)) for x in one.values()))
        for one in value.values()
    )
