"""The service as tests use it: started, its parts within reach, ended with everything it runs."""

from __future__ import annotations

import re
import sys
import uuid
from pathlib import Path
from types import TracebackType

import certifi

from tests.support.azurite import Azurite
from tests.support.identity_endpoint import TENANT, running_identity_endpoint
from tests.support.throwaway_ca import make_certificate

from .codes import Codes
from .computes import Computes
from .data import Data
from .datastores import Datastores
from .environments import Environments
from .execution import Executions
from .families import Components
from .faults import Faults
from .history import History
from .job import Job
from .jobs import Jobs
from .operations import Operations
from .place import Place
from .routes import Routes
from .server import Call, Server
from .storage import Storage
from .storage_front import BLOB_HOSTS, StorageFront
from .tracking import Tracking
from .workspaces import Workspaces


class AzureMLService:
    """One workspace on loopback, as a context manager. `folder` is for certificates and nodes, `interpreter` what jobs
    find as `python`; without one it is that of the tests. `storage_authority` signed the certificate of an Azurite over
    https, which alone can be logged in to (`--oauth basic`). `azurite_outside` is the same Azurite as clients reach it,
    where that is another address.

    `variables` make the unmodified DefaultAzureCredential and MLClient of a process work with it, and give the
    key to its storage; `login_variables` are without the key. `faults` has the switches, `calls` what was asked.
    """

    def __init__(
        self,
        folder: Path,
        azurite: Azurite,
        *,
        interpreter: Path | None = None,
        storage_authority: Path | None = None,
        azurite_outside: Azurite | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.faults = Faults()
        certificate = make_certificate(folder, f"*.{BLOB_HOSTS}")
        self._bundle = folder / "trusted.pem"
        # The bundle stands for the usual one in the whole process, which may also talk to the world.
        trusted = [Path(certifi.where()), certificate.authority, *([storage_authority] if storage_authority else [])]
        self._bundle.write_text("".join(path.read_text() for path in trusted))
        self._server = Server(certificate, self.faults, lambda request: self._routes.answer(request))
        workspace_id = str(uuid.uuid4())
        self.place = Place(
            endpoint=f"https://127.0.0.1:{self._server.port}",
            subscription_id="99999999-aaaa-4bbb-8ccc-dddddddddddd",
            resource_group="loopback-group",
            workspace_name="loopback-workspace",
            workspace_id=workspace_id,
            tenant_id=TENANT,
            authority=str(certificate.authority),
        )
        self.storage = Storage(azurite, f"azureml-blobstore-{workspace_id}", storage_authority)
        self.storage.azurite = azurite_outside or azurite
        self._front = StorageFront(certificate, self.storage.azurite, storage_authority)
        self.operations = Operations(self.place, self.faults)
        self.workspaces = Workspaces(self.place, azurite.account)
        self.datastores = Datastores(self.place, self.storage, self.faults)
        self.computes = Computes(self.place, self.faults, self.operations)
        self.environments = Environments(self.place)
        self.codes = Codes(self.place, self.storage)
        self.components = Components(self.place, lambda: self.storage.default_datastore)
        self.data = Data(self.place)
        self.executions = Executions(
            folder / "nodes",
            self.place,
            self.storage,
            self.faults,
            self.computes,
            self.environments,
            self.codes,
            self.data,
            interpreter or Path(sys.executable),
        )
        self.jobs = Jobs(
            self.place,
            self.faults,
            self.operations,
            self.computes,
            self.environments,
            self.codes,
            self.components,
            self.executions.start,
        )
        self.history = History(self.place, self.storage, self.faults, self.jobs)
        parts = (
            self.workspaces,
            self.datastores,
            self.computes,
            self.operations,
            self.environments,
            self.codes,
            self.components,
            self.data,
            self.jobs,
            self.history,
            Tracking(self.faults, self.jobs),
        )
        self._routes = Routes([route for part in parts for route in part.routes()], self.workspaces.refuse_others)
        self._identity = running_identity_endpoint()
        self.login_variables: dict[str, str] = {}

    def __enter__(self) -> AzureMLService:
        identity = self._identity.__enter__()
        self.login_variables = {
            **identity.variables,
            "ARM_CLOUD_METADATA_URL": f"{self.endpoint}/metadata/endpoints?api-version=2019-05-01",
            "REQUESTS_CA_BUNDLE": str(self._bundle),
        }
        self._server.start()
        self._front.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.executions.close()
        self._server.close()
        self._front.close()
        self._identity.__exit__(None, None, None)
        self.storage.close()

    @property
    def variables(self) -> dict[str, str]:
        azurite = self.storage.azurite
        return {**self.login_variables, "AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string}

    @property
    def stock_variables(self) -> dict[str, str]:
        """With them the SDK's own transfers work, which know blobs only as https://ACCOUNT.blob.core.windows.net."""
        return {**self.variables, "HTTPS_PROXY": self._front.url, "NO_PROXY": "127.0.0.1"}

    @property
    def endpoint(self) -> str:
        return self.place.endpoint

    @property
    def subscription_id(self) -> str:
        return self.place.subscription_id

    @property
    def resource_group(self) -> str:
        return self.place.resource_group

    @property
    def workspace_name(self) -> str:
        return self.place.workspace_name

    @property
    def account_url(self) -> str:
        """The storage account, path-style; the containers are `default_container` and `azureml`."""
        return self.storage.azurite.url

    @property
    def default_container(self) -> str:
        return self.storage.default_container

    @property
    def calls(self) -> list[Call]:
        return self._server.calls

    def calls_like(self, pattern: str) -> list[Call]:
        """Those whose `METHOD /path` the pattern is found in, in any case."""
        return [one for one in self.calls if re.search(pattern, f"{one.method} {one.path}", re.IGNORECASE)]

    def job(self, name: str) -> Job:
        return self.jobs.named(name)

    def preempt(self, name: str, *, grace_s: float = 0.0) -> None:
        """Take the nodes of a running job away: it is queued again and restarts. Raises ValueError."""
        job = self.job(name)
        with job.lock:
            if job.status != "Running":
                raise ValueError(f"{name} is {job.status}, not Running")
            job.preempt_grace_s = grace_s
            job.preempt.set()
