"""The workspace's storage account: containers in Azurite, addresses of blobs, folders brought down."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import (
    BlobClient,
    BlobProperties,
    BlobSasPermissions,
    BlobServiceClient,
    ContainerClient,
    ContainerSasPermissions,
    generate_blob_sas,
    generate_container_sas,
)

from tests.support.azurite import Azurite

ARTIFACTS = "azureml"
"""The container of logs and of what a run leaves behind."""


class MissingDataError(Exception):
    """An address that nothing lies at, or that is none."""


class Storage:
    """Thread-safe. An address is a pair of container and path; `default_datastore` can be set to another one."""

    def __init__(self, azurite: Azurite, default_container: str, authority: Path | None) -> None:
        """`authority` signs the certificate of an https Azurite."""
        self.azurite = azurite
        self.default_datastore = "workspaceblobstore"
        self._client = BlobServiceClient(
            azurite.url, credential=azurite.key, connection_verify=str(authority) if authority else True
        )
        self._datastores = {"workspaceblobstore": default_container, "workspaceartifactstore": ARTIFACTS}
        for container in (default_container, ARTIFACTS):
            self.make_container(container)

    @property
    def default_container(self) -> str:
        return self._datastores[self.default_datastore.lower()]

    def close(self) -> None:
        self._client.close()

    def make_container(self, name: str) -> None:
        try:
            self._client.create_container(name)
        except ResourceExistsError:
            return

    def add_datastore(self, name: str, container: str) -> None:
        self._datastores[name.lower()] = container
        self.make_container(container)

    def address(self, uri: str) -> tuple[str, str]:
        """Of an azureml, https or wasbs address. Raises MissingDataError for one of another account."""
        if found := re.match(r"azureml:/.*?/?datastores/([^/]+)/(?:paths/)?(.*)$", uri, re.IGNORECASE):
            container = self._datastores.get(found[1].lower())
            if container is None:
                raise MissingDataError(f"Datastore {found[1]} not found ({uri}).")
            return container, found[2]
        url = urlsplit(uri)
        path = unquote(url.path).lstrip("/")
        if url.scheme == "wasbs" and url.username and url.hostname:
            container, account = url.username, url.hostname.partition(".")[0]
        elif f"{url.scheme}://{url.netloc}/{path}".startswith(self.azurite.url + "/"):
            account, container, path = (*path.split("/", 2), "")[:3]
        else:
            account = (url.hostname or "").partition(".")[0]
            container, _, path = path.partition("/")
        if account != self.azurite.account or not container:
            raise MissingDataError(f"The storage account of {uri} cannot be reached.")
        return container, path

    def container(self, name: str) -> ContainerClient:
        return self._client.get_container_client(name)

    def blob(self, container: str, path: str) -> BlobClient:
        return self._client.get_blob_client(container, path)

    def under(self, container: str, prefix: str) -> Iterator[BlobProperties]:
        """Blobs below a prefix that ends with a slash or is empty; markers of folders are left out."""
        for one in self._client.get_container_client(container).list_blobs(prefix, include=["metadata"]):
            if (one.metadata or {}).get("hdi_isfolder") != "true" and one.name != prefix:
                yield one

    def bring_folder(self, container: str, path: str, folder: Path) -> int:
        """Everything below the path, into the folder, which is made. Returns how many files."""
        prefix = path.rstrip("/") + "/" if path.strip("/") else ""
        folder.mkdir(parents=True, exist_ok=True)
        wanted = []
        for one in self.under(container, prefix):
            relative = PurePosixPath(one.name[len(prefix) :])
            if ".." in relative.parts or relative.is_absolute():
                raise MissingDataError(f"{one.name} would leave its folder.")
            wanted.append((one.name, folder / relative))
        with ThreadPoolExecutor(4) as pool:
            for _ in pool.map(lambda pair: self.bring_file(container, *pair), wanted):
                pass
        return len(wanted)

    def bring_file(self, container: str, path: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with target.open("wb") as file:
                self.blob(container, path).download_blob().readinto(file)
        except ResourceNotFoundError as error:
            target.unlink()
            raise MissingDataError(f"{container}/{path} does not exist.") from error

    def send_file(self, source: Path, container: str, path: str) -> None:
        with source.open("rb") as file:
            self.blob(container, path).upload_blob(file, overwrite=True)

    def send_text(self, text: str, container: str, path: str) -> None:
        self.blob(container, path).upload_blob(text.encode(), overwrite=True)

    def delete(self, container: str, path: str) -> None:
        try:
            self.blob(container, path).delete_blob()
        except ResourceNotFoundError:
            return

    def signed_url(self, container: str, path: str, lifetime_s: float) -> str:
        """A URL that grants read access by itself."""
        token = generate_blob_sas(
            self.azurite.account,
            container,
            path,
            account_key=self.azurite.key,
            permission=BlobSasPermissions(read=True),
            start=_from_now(min(0.0, lifetime_s) - 3600),
            expiry=_from_now(lifetime_s),
        )
        return f"{self.azurite.url}/{container}/{quote(path)}?{token}"

    def container_sas(self, container: str, permissions: str, lifetime_s: float = 8 * 3600.0) -> str:
        return generate_container_sas(
            self.azurite.account,
            container,
            self.azurite.key,
            permission=ContainerSasPermissions.from_string(permissions),
            expiry=_from_now(lifetime_s),
        )


def _from_now(seconds: float) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
