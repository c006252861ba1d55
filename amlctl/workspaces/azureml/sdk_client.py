"""`azure-ai-ml` as amlctl uses it: one `MLClient` per workspace, opened when something is created in Azure ML.

Importing it takes more than a second of processor time, so reading commands must not reach this client, and a submit
starts the import early, while it waits for the network.
"""

from __future__ import annotations

import io
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Any

from amlctl.azure_access.azure_ai_ml import CLOUD_VARIABLE, azure_ai_ml, begin_import
from amlctl.azure_access.login import Login, LoginCredential
from amlctl.errors import UsageError
from amlctl.workspaces.azureml.place import Place

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.ai.ml.entities import Job
    from azure.core.credentials import AccessToken
    from azure.core.pipeline.transport import HttpTransport

_POLL_S = 1.0
"""Between two looks at a long-running operation: the service does not say how long, and azure-core waits 30 s."""


class SDKClient:
    """Used from one thread; `begin_import` may be called at any time before."""

    def __init__(self, place: Place, credential: Credential, transport: HttpTransport[Any, Any]) -> None:
        self._place = place
        self._credential = credential
        self._transport = transport
        self._cloud = f"amlctl-{uuid.uuid4().hex}"  # the addresses of a name that the SDK knows cannot be changed
        self._client: MLClient | None = None
        self._importing: Thread | None = None

    def begin_import(self) -> None:
        if self._importing is None:
            self._importing = begin_import()

    @contextmanager
    def client(self) -> Iterator[MLClient]:
        """`azure.ai.ml` can be imported and used inside."""
        if self._importing is not None:
            self._importing.join()
        with azure_ai_ml():
            if self._client is None:
                self._client = self._opened()
            os.environ[CLOUD_VARIABLE] = self._cloud
            yield self._client

    def _opened(self) -> MLClient:
        from azure.ai.ml import MLClient

        place, cloud = self._place, self._place.cloud
        options: dict[str, Any] = {"transport": self._transport, "retry_total": 0, "polling_interval": _POLL_S}
        return MLClient(
            self._credential,
            place.subscription_id,
            place.resource_group,
            place.workspace_name,
            cloud=self._cloud,
            cloud_metadata={
                "azure_portal": cloud.studio,
                "resource_manager": cloud.resource_manager,
                "active_directory": cloud.authority,
                "aml_resource_id": cloud.service,
                "storage_endpoint": cloud.storage_suffix,
                "registry_discovery_endpoint": cloud.resource_manager,
            },
            enable_telemetry=False,
            show_progress=False,
            **options,
        )

    def loaded_job(self, document: Mapping[str, Any]) -> Job:
        """Job YAML as the SDK's own object. Raises UsageError."""
        with self.client():
            from azure.ai.ml import load_job
            from azure.ai.ml.exceptions import MlException
            from marshmallow.exceptions import ValidationError

            try:
                return load_job(io.StringIO(json.dumps(document)))
            except (MlException, ValidationError) as error:
                raise UsageError(f"azure-ai-ml does not accept the job: {' '.join(str(error).split())}") from error


class Credential(LoginCredential):
    """The login for Azure ML. An endpoint of one's own is not what tokens are for."""

    def __init__(self, login: Login, place: Place) -> None:
        super().__init__(login)
        self._cloud = place.cloud

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        is_own = scopes[0].removesuffix("/.default") == self._cloud.resource_manager
        return super().get_token(f"{self._cloud.audience}/.default" if is_own else scopes[0], **options)
