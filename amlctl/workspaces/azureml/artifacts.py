"""Files that a run has left in Azure ML itself: those of `./outputs` and `./logs`, and named outputs."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from amlctl.core.run import RunRecord
from amlctl.core.store_keys import run_prefix
from amlctl.errors import IntegrityError, NotFound, RightsError
from amlctl.parallel import for_each
from amlctl.stores.contract import Store, is_valid_key
from amlctl.workspaces.azureml.connection import Connection
from amlctl.workspaces.azureml.datastores import default_datastore, named_datastore
from amlctl.workspaces.contract import RunFile

_ARTIFACT_STORE = "workspaceartifactstore"
_VERSION = "2024-01-01-preview"
_URI = re.compile(r"azureml:/.*?/?datastores/([^/]+)/(?:paths/)?(.*)", re.IGNORECASE)


@dataclass(frozen=True)
class _Folder:
    """Blobs below a prefix, which ends with a slash, and the target of their files below the run's folder."""

    container_url: str
    prefix: str
    target: str

    @property
    def url(self) -> str:
        return f"{self.container_url}/{self.prefix}"


class Artifacts:
    """Of one run. `open_store` opens the store of a URL."""

    def __init__(self, connection: Connection, open_store: Callable[[str], Store], run: str, container: str) -> None:
        """`container` is the run's folder among the artifacts, such as `dcid.<run>`."""
        self._connection = connection
        self._open_store = open_store
        self._run = run
        self._container = container

    def files(self) -> list[RunFile]:
        """Raises RightsError, ServiceUnavailable."""
        found: dict[str, RunFile] = {}
        for folder in self._folders():
            store = self._open_store(folder.url)
            entries = [entry for entry in store.list("") if is_valid_key(entry.key)]
            # A blob with the name of a folder is a marker, also of an empty folder.
            parents = {above for entry in entries for above in _parents(entry.key)}
            files = [
                entry
                for entry in entries
                if entry.key not in parents and (entry.size_bytes or store.info(entry.key) is not None)
            ]
            target = _free_target(folder.target, [entry.key for entry in files], found)
            for entry in files:
                path = target + entry.key
                found[path] = RunFile(path, entry.size_bytes, entry.modified_at, store, entry.key)
        return list(found.values())

    def delete(self) -> list[str]:
        """All folders that Azure ML has made for the run; returns what stays, and why.

        Raises ServiceUnavailable.
        """
        own, kept = [], []
        with suppress(NotFound):
            own.append(self._artifact_folder("", ""))
        for name, output in self._named_outputs():
            folder = self._output_folder(name)
            uri = str(output.get("uri") or "")
            if asset := str(output.get("assetName") or ""):
                kept.append(
                    f"output {name}, the data asset azureml:{asset}:{output.get('assetVersion') or ''}".rstrip(":")
                )
            elif not uri or self._folder_of(uri, name) == folder:
                own.append(folder)
            else:
                kept.append(f"output {name} at {uri}, a path that the job was given")
        for folder in own:
            try:
                self._delete_below(folder)
            except NotFound:  # the container
                continue
            except RightsError as error:
                kept.append(f"{folder.url} ({error.message})")
        return kept

    def _delete_below(self, folder: _Folder) -> None:
        """Deepest first: with a hierarchical namespace a folder can be deleted once it is empty."""
        store = self._open_store(folder.url)
        keys = [entry.key for entry in store.list("") if is_valid_key(entry.key)]
        keys.sort(key=lambda key: -key.count("/"))
        for _, level in itertools.groupby(keys, key=lambda key: key.count("/")):
            for_each(store.delete, level, store.concurrency)

    def _folders(self) -> Iterator[_Folder]:
        yield self._artifact_folder("outputs/", "")
        yield self._artifact_folder("logs/", "logs/")
        for name, output in self._named_outputs():
            folder = self._folder_of(str(output["uri"]), name) if output.get("uri") else self._output_folder(name)
            if folder is not None:
                yield folder

    def _folder_of(self, uri: str, name: str) -> _Folder | None:
        match = _URI.fullmatch(uri)
        if match is None or not is_valid_key(match[2].rstrip("/")):
            return None
        try:
            datastore = named_datastore(self._connection, match[1])
        except NotFound:
            return None
        return _Folder(datastore.container_url, match[2].rstrip("/") + "/", f"{name}/")

    def _artifact_folder(self, prefix: str, target: str) -> _Folder:
        artifacts = named_datastore(self._connection, _ARTIFACT_STORE)
        return _Folder(artifacts.container_url, f"ExperimentRun/{self._container}/{prefix}", target)

    def _output_folder(self, name: str) -> _Folder:
        container_url = default_datastore(self._connection).container_url
        return _Folder(container_url, f"azureml/{self._run}/{name}/", f"{name}/")

    def _named_outputs(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Without `default`, which is `./outputs`, and the runtime's own in the store."""
        answer = self._connection.workspace("GET", f"/jobs/{self._run}", _VERSION, accept=(404,))
        outputs: dict[str, Any] = (answer.document.get("properties") or {}).get("outputs") or {}
        return ((name, output) for name, output in outputs.items() if name not in ("default", "saves"))


def _free_target(target: str, keys: Sequence[str], found: Mapping[str, object]) -> str:
    """`./outputs` may have a `logs/` of its own: then the files of `./logs` go to `amlctl-logs/`."""
    taken = {*found, *(above for path in found for above in _parents(path))}
    while target and any(
        target + key in taken or any(above in found for above in _parents(target + key)) for key in keys
    ):
        target = f"amlctl-{target}"
    return target


def _parents(path: str) -> Iterator[str]:
    return (path[:at] for at, sign in enumerate(path) if sign == "/")


def delete_run(connection: Connection, store: Store, record: RunRecord, artifacts: Artifacts) -> list[str]:
    """Delete a run's files in the store and its artifacts; returns what stays, and why. It can be repeated.

    Raises IntegrityError, ServiceUnavailable.
    """
    run, experiment = record.run, record.spec.experiment or "Default"
    if "/" in experiment:  # impossible in Azure ML, and the path would lead to another run
        raise IntegrityError(f"the record of run {run} names the experiment {experiment!r}, which cannot exist")
    kept = artifacts.delete()
    path = f"/experiments/{experiment}/runs/{run}"
    if connection.history("PATCH", path, {"hidden": True}, accept=(404,)).status != 404:
        kept.insert(0, "the job in Azure ML, which is archived: jobs cannot be deleted there")
    for entry in list(store.list(run_prefix(run))):
        store.delete(entry.key)
    return kept


def files_of_family(
    own: Artifacts, children: Sequence[Mapping[str, str]], of_run: Callable[[str], Artifacts]
) -> list[RunFile]:
    """A run's own files, and those of each child run in a folder. Raises RightsError, ServiceUnavailable."""
    found = own.files()
    for folder, run in _folder_names(children).items():
        found += [replace(file, path=f"{folder}/{file.path}") for file in of_run(run).files()]
    return found


def _folder_names(children: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Run by folder; a folder has the step's name if that is a unique file name."""
    counted = Counter(one["name"] for one in children)
    names = {}
    for one in children:
        is_plain = counted[one["name"]] == 1 and "/" not in one["name"] and one["name"].strip(". ")
        names[one["name"] if is_plain else one["run"]] = one["run"]
    return names
