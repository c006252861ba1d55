"""ARM and run history of one workspace: addresses, login, pages of lists, and refusals in words."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from amlctl import __version__
from amlctl.azure_access.login import Login
from amlctl.core.events import EventSink, null_sink
from amlctl.core.message import Command, Message
from amlctl.core.settings import WorkspaceSettings
from amlctl.errors import AmlctlError, Conflict, LoginError, NotFound, RightsError, ServiceUnavailable, UsageError
from amlctl.localfs.atomic import read_json, write_json
from amlctl.localfs.project import Project
from amlctl.workspaces.azureml.address import Place, place_of
from amlctl.workspaces.azureml.clients import Answer, Credential, Exchange, SDKClient

WORKSPACE_VERSION = "2024-10-01-preview"
_A_WORKSPACE = re.compile(r"/workspaces/[^/']+'", re.IGNORECASE)
_AUTHORITY = re.compile(r'authorization_uri="https://[^/"]+/([0-9A-Fa-f-]{36})')


@dataclass(frozen=True)
class Facts:
    """What does not change while a workspace exists. `history` is the address of run history."""

    history: str
    location: str
    tenant_id: str
    workspace_id: str


class Connection:
    """Thread-safe but for `memory`. Nothing is sent, and nobody logged in, before the first call."""

    def __init__(
        self,
        settings: WorkspaceSettings,
        project: Project,
        variables: Mapping[str, str],
        *,
        sleep: Callable[[float], object] = time.sleep,
        tell: EventSink = null_sink,
    ) -> None:
        """`tell` gets an event for each repeated request. Raises SettingsError."""
        self.place: Place = place_of(settings)
        self.project = project
        self.memory = Memory(project, f"{self.place.cloud.resource_manager}{self.place.id}")
        self.login = Login(
            authority=self.place.cloud.authority,
            tenant_id=self.place.tenant_id,
            purpose=f" for {self.place.shown}",
        )
        credential = Credential(self.login, self.place)
        self.exchange = Exchange(
            variables,
            credential=credential,
            scope=f"{self.place.cloud.audience}/.default",
            renew=self._renew_login,
            takes_login=self.place.cloud.has_manager,
            sleep=sleep,
            tell=tell,
        )
        self.sdk = SDKClient(self.place, credential, self.exchange.sdk_transport)
        self.identity = settings.identity or ""
        self.variables = variables
        self.strangers: set[str] = set()
        """Containers that are no datastore's, as far as this command has asked: one can be made at any time."""
        self.ready_targets: set[str] = set()
        """Compute targets that this command has seen, and seen ready."""

    def close(self) -> None:
        """Let the connections go; the next request makes new ones."""
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
        """One request below the workspace's own address; `path` begins with `/`, or is empty.

        Statuses of 400 and above are errors unless `accept` names them.
        """
        url = self.url(self.place.path + quote(path), version, query)
        return self._checked(verb, url, body, accept)

    def subscription(self, verb: str, path: str, version: str, *, accept: Collection[int] = ()) -> Answer:
        """One request below the subscription: sizes and quotas of a location."""
        base = f"/subscriptions/{quote(self.place.subscription_id, safe='')}"
        return self._checked(verb, self.url(base + quote(path), version), None, accept)

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
        url = f"{self.facts.history}/history/v1.0{self.place.path}{quote(path)}{text}"
        return self._checked(verb, url, body, accept)

    def follow(self, verb: str, url: str, *, accept: Collection[int] = ()) -> Answer:
        """One request to an address that the service has given: the next page, the state of an operation."""
        if not self.place.cloud.has_manager(url):
            raise ServiceUnavailable(
                f"Azure ML points to {urlsplit(url).netloc}, which does not get our login",
                hint="check the endpoint of the workspace in .amlctl.toml",
            )
        return self._checked(verb, url, None, accept)

    def pages(self, path: str, version: str, query: Mapping[str, str] | None = None) -> Iterator[list[Any]]:
        """The pages of a list; an empty one may have another behind it."""
        answer = self.workspace("GET", path, version, query=query)
        while True:
            document = answer.document if isinstance(answer.document, dict) else {}
            yield document.get("value") or []
            following = document.get("nextLink")
            if not following:
                return
            answer = self.follow("GET", str(following))

    def values(self, path: str, version: str, query: Mapping[str, str] | None = None) -> Iterator[Any]:
        """Everything in a list."""
        for page in self.pages(path, version, query):
            yield from page

    def url(self, path: str, version: str, query: Mapping[str, str] | None = None) -> str:
        text = urlencode({**(query or {}), "api-version": version}, quote_via=quote, safe="$")
        return f"{self.place.cloud.resource_manager}{path}?{text}"

    @property
    def facts(self) -> Facts:
        """Asked for once, then remembered from command to command."""
        known = self.memory.get("facts")
        try:
            return Facts(**known)
        except TypeError:
            pass
        document = self.workspace("GET", "", WORKSPACE_VERSION).document or {}
        properties = document.get("properties") or {}
        hosts = self.exchange.send("GET", str(properties.get("discoveryUrl") or ""), _headers()).document or {}
        history = str(hosts.get("api") or hosts.get("history") or "").rstrip("/")
        if not history.startswith("https://"):
            raise ServiceUnavailable(
                f"the workspace {self.place.shown} does not tell where its run history is",
                hint=Message("try again; ", Command("doctor"), " checks the workspace"),
            )
        found = {
            "history": history,
            "location": str(document.get("location") or ""),
            "tenant_id": str(properties.get("tenantId") or ""),
            "workspace_id": str(properties.get("workspaceId") or ""),
        }
        self.memory.set(facts=found)
        return Facts(**found)

    def _checked(self, verb: str, url: str, body: Any, accept: Collection[int]) -> Answer:
        data = None if body is None else json.dumps(body).encode()
        headers = _headers() if data is None else {**_headers(), "content-type": "application/json"}
        answer = self.exchange.send(verb, url, headers, data, is_authorized=True)
        if answer.status < 400 or answer.status in accept:
            return answer
        raise self.error(answer, verb, url)

    def _renew_login(self) -> str:
        """A new token: the last one was revoked."""
        return self.login.token(self.place.cloud.audience, is_fresh=True)

    def error(self, answer: Answer, verb: str, url: str) -> AmlctlError:
        """A refusal in words, with what to do now."""
        place, code, status = self.place, answer.code, answer.status
        thing = _thing(url, place)
        name = ", ".join(
            part for part in (code, answer.correlation_id and f"correlation {answer.correlation_id}") if part
        )
        told = f"{answer.message or f'status {status}'} ({name})" if name else answer.message or f"status {status}"
        if status == 401:
            return LoginError(
                f"Azure does not accept the login for {place.shown}: {told}", hint=_login_hint(answer, place)
            )
        if status == 403:
            return RightsError(
                f"no right to {_verb(verb)} {thing}: {told}",
                hint=f"ask for the role AzureML Data Scientist on the workspace {place.workspace_name}, "
                "then az login anew",
            )
        if status == 404 and is_of_the_workspace(answer):
            tells = "az account list -o table" if code == "SubscriptionNotFound" else "az ml workspace list -o table"
            return NotFound(
                f"Azure finds no workspace {place.shown}: {told}",
                hint=f"check [workspaces.{place.name}] in .amlctl.toml: {tells}",
            )
        if status == 404:
            return NotFound(f"there is no {thing}: {told}")
        if status in (409, 412):
            return Conflict(f"{thing} stands in the way: {told}", hint="look at it in Studio, then run it again")
        if status == 429:
            return ServiceUnavailable(f"Azure ML is asked too often just now: {told}", hint="try again in a minute")
        if status >= 500 or status == 408:
            return ServiceUnavailable(f"Azure ML failed at {thing}: {told}", hint="try again in a minute")
        return UsageError(f"Azure ML refused {thing}: {told}")


def is_of_the_workspace(answer: Answer) -> bool:
    """Whether a 404 is for the workspace, or for what is above it, rather than for what was looked for in it."""
    if answer.code in ("SubscriptionNotFound", "ResourceGroupNotFound"):
        return True
    return answer.code == "ResourceNotFound" and _A_WORKSPACE.search(answer.message) is not None


def _headers() -> dict[str, str]:
    return {"user-agent": f"amlctl/{__version__}", "accept": "application/json", "accept-encoding": "gzip"}


def _login_hint(answer: Answer, place: Place) -> str:
    """A subscription takes tokens of its own tenant alone, and its refusal of others tells which one that is."""
    found = _AUTHORITY.search(answer.headers.get("www-authenticate", ""))
    if found is None or answer.code != "InvalidAuthenticationTokenTenant":
        return f"az login --tenant {place.tenant_id}" if place.tenant_id else "az login"
    return f'az login --tenant {found[1]}, and tenant_id = "{found[1]}" in [workspaces.{place.name}]'


def _thing(url: str, place: Place) -> str:
    """`job train-1`, `environment amlctl-env version 1a2b`, or the workspace."""
    path = urlsplit(url).path
    at = path.lower().find(place.path.lower())
    parts = [part for part in path[at + len(place.path) :].split("/") if part] if at >= 0 else []
    if not parts:
        return f"workspace {place.shown}" if at >= 0 else path.rpartition("/")[2]
    pairs = zip(parts[::2], [*parts[1::2], ""], strict=False)
    return " ".join(f"{kind.removesuffix('s')} {name}".strip() for kind, name in pairs if name or len(parts) == 1)


def _verb(verb: str) -> str:
    return {"GET": "read", "PUT": "write", "PATCH": "change", "DELETE": "delete"}.get(verb, "act on")


_KEPT = 500
"""Names of each kind that are remembered."""


class Memory:
    """Not for two threads at a time; of two processes the last writer wins."""

    def __init__(self, project: Project, workspace_id: str) -> None:
        self._project = project
        # Named by what it is about: a settings file that points elsewhere must not find old addresses.
        digest = hashlib.sha256(workspace_id.lower().encode()).hexdigest()[:16]
        self._path: Path = project.state_dir / "cache" / "azureml" / f"{digest}.json"
        self._facts: dict[str, Any] | None = None

    def get(self, name: str) -> Any:
        """A fact, or None."""
        return self._read().get(name)

    def set(self, **facts: Any) -> None:
        self._facts = None  # what another process has learned meanwhile stays
        kept = {**self._read(), **facts}
        self._write({name: value for name, value in kept.items() if value is not None})

    def has(self, kind: str, name: str) -> bool:
        """Whether an asset of that kind was seen in the workspace."""
        return name in (self.get(kind) or {})

    def value(self, kind: str, name: str) -> Any:
        return (self.get(kind) or {}).get(name)

    def add(self, kind: str, name: str, value: Any = True) -> None:
        names = dict(self.get(kind) or {})
        names.pop(name, None)
        names[name] = value
        self.set(**{kind: dict(list(names.items())[-_KEPT:])})

    def forget(self, *kinds: str) -> None:
        self.set(**dict.fromkeys(kinds))

    def clear(self) -> None:
        """Forget everything."""
        self._write({})

    def _read(self) -> dict[str, Any]:
        if self._facts is None:
            self._facts = {}
            with suppress(OSError, AmlctlError):
                found = read_json(self._path)
                # A damaged fact costs a request, as an unknown one does.
                if isinstance(found, Mapping):
                    self._facts = {kind: value for kind, value in found.items() if _is_fact(value)}
        return self._facts

    def _write(self, facts: dict[str, Any]) -> None:
        self._facts = facts
        with suppress(OSError, AmlctlError):  # where nothing can be written, it is asked for again
            self._project.ensure_state_dir()
            write_json(self._path, facts)


def _is_fact(value: Any) -> bool:
    """Texts and flags by name, or a table of them by name: all that is ever kept."""
    return isinstance(value, dict) and all(
        isinstance(one, (str, bool))
        or (isinstance(one, dict) and all(isinstance(x, (str, bool)) for x in one.values()))
        for one in value.values()
    )
