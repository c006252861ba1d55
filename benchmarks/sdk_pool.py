"""What one writes first: azure-storage-blob and a pool of threads, one request a file; unchanged files are skipped.

python sdk_pool.py up|down ACCOUNT_URL CONTAINER FOLDER        (the key is in AZURE_STORAGE_KEY)
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from azure.storage.blob import BlobProperties, ContainerClient

_THREADS = 32


def main(direction: str, account_url: str, container: str, folder: str) -> None:
    credential = {"account_name": account_url.rsplit("/", 1)[1], "account_key": os.environ["AZURE_STORAGE_KEY"]}
    root = Path(folder)
    with ContainerClient(account_url, container, credential=credential, connection_pool_maxsize=_THREADS) as client:
        there = {blob.name: blob for blob in client.list_blobs()}
        here = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
        with ThreadPoolExecutor(_THREADS) as pool:
            if direction == "up":
                list(pool.map(lambda name: _up(client, name, here[name], there.get(name)), here))
                list(pool.map(client.delete_blob, there.keys() - here.keys()))
            else:
                list(pool.map(lambda name: _down(client, there[name], root / name), there))


def _up(client: ContainerClient, name: str, path: Path, there: BlobProperties | None) -> None:
    status = path.stat()
    if there and there.size == status.st_size and there.last_modified.timestamp() > status.st_mtime:
        return
    with path.open("rb") as file:
        client.upload_blob(name, file, length=status.st_size, overwrite=True, max_concurrency=4)


def _down(client: ContainerClient, there: BlobProperties, path: Path) -> None:
    if path.exists() and path.stat().st_size == there.size and path.stat().st_mtime > there.last_modified.timestamp():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        client.download_blob(there.name, max_concurrency=4).readinto(file)


if __name__ == "__main__":
    main(*sys.argv[1:])
