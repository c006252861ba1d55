"""Code snapshots as code versions: the folder that our own sync has filled, registered under its id."""

from __future__ import annotations

import hashlib

from amlctl.core.store_keys import code_prefix
from amlctl.stores.azure_blob.address import BlobAddress
from amlctl.workspaces.azureml.connection import Connection

VERSION = "2023-04-01"
NAME = "amlctl"
_MEMORY = "codes"


def ensure_code(connection: Connection, code: str, root: BlobAddress) -> str:
    """The resource id of the snapshot, which lies below `root`: one call, or none where this machine has made it.

    A version cannot be given another folder: should the datastore have become another one, it gets one more version.
    """
    uri = f"{root.account_url}/{root.container}/{root.prefix}{code_prefix(code)}".rstrip("/")
    known = connection.memory.value(_MEMORY, uri)
    if known is None:
        known = code
        if not _register(connection, known, code, uri):
            known = f"{code}-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"
            _register(connection, known, code, uri, must=True)
        connection.memory.add(_MEMORY, uri, known)
    return f"{connection.place.id}/codes/{NAME}/versions/{known}"


def _register(connection: Connection, version: str, code: str, uri: str, *, must: bool = False) -> bool:
    """False where the version has another folder."""
    body = {"properties": {"codeUri": uri, "isAnonymous": False, "properties": {"amlctl.tree": code}}}
    path = f"/codes/{NAME}/versions/{version}"
    answer = connection.workspace("PUT", path, VERSION, body, accept=() if must else (400, 409))
    return answer.status < 400
