"""Inputs of a job file that are registered in Azure ML or given by an address.

They are looked up before anything is sent: Azure ML accepts a job without looking, which then fails on its node. On
this machine the data is downloaded and becomes a dataset: once, since later submits ask whether it has changed. Each
address has a folder of its own below `.amlctl/inputs/`, with a note of where its content came from.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from amlctl.core.environment import EnvironmentSpec
from amlctl.core.events import Note, Warned
from amlctl.core.hidden_values import VARIABLE_PREFIX, filled
from amlctl.core.job import AssetName, container_of, https_of, parse_asset
from amlctl.core.message import count, size
from amlctl.core.run import at_line
from amlctl.core.secret_names import masked
from amlctl.errors import (
    IntegrityError,
    LoginError,
    NotFound,
    RightsError,
    ServiceUnavailable,
    SettingsError,
    UsageError,
)
from amlctl.localfs.atomic import kept_json, temporary_near, write_json
from amlctl.localfs.disk_errors import disk_error
from amlctl.localfs.folders import remove_tree, walk
from amlctl.localfs.project import INPUTS
from amlctl.operations.context import Context
from amlctl.operations.sync.adopt import files_among
from amlctl.parallel import ended_by_interrupt, in_parallel
from amlctl.stores.contract import Store, is_valid_key
from amlctl.workspaces.contract import PresentAsset, RegisteredAssets, Workspace

if TYPE_CHECKING:
    from amlctl.operations.submit.check import CheckedRun

_DATASTORE = re.compile(r"azureml://datastores/([^/]+)/paths/")
_MODELS = ("custom_model", "mlflow_model", "triton_model")
_DOWNLOADED = re.compile(r"(?:https?|wasbs?|abfss?)://|azureml://(?:.*/)?datastores/[^/]+/paths/")
_PLAIN_NAME = re.compile(r"[\w-][\w. -]{0,99}")


_LIMIT_BYTES = 50 << 30
"""For all downloads together; those used least recently are removed."""


@dataclass(frozen=True)
class Address:
    """`line` is that of the job file that names it. A `file:` URL is a file or folder of this machine."""

    url: str
    is_file: bool = False
    line: str = ""


def with_present_assets(run: CheckedRun, workspace: Workspace) -> CheckedRun:
    """The same with the versions that are there now, as the record has to name them.

    Raises NotFound, UsageError (data of another type), SettingsError (a workspace that has no such things).
    """
    spec = run.spec
    if workspace.service is None:
        return _with_downloads(run) if spec.assets else run
    assets = workspace.service.assets
    name = run.environment.registered
    if name and "/" not in name:  # a registry, or a resource id, is asked by the service itself
        with run.merged.at("environment"):
            found = _found("environment", name, assets.environment)
        environment = EnvironmentSpec(registered=str(found.asset))
        spec = replace(spec, environment=environment.id)
        run = replace(run, spec=spec, environment=environment)
    inputs = {name: dict(one) for name, one in spec.inputs.items()}
    for name, one in spec.assets.items():
        with run.merged.at(f"inputs.{name}"):
            if parse_asset(one["asset"]) is None:  # the nodes go there
                _check_datastore(one["asset"], assets)
                continue
            kind, find = ("model", assets.model) if one["type"] in _MODELS else ("data", assets.data)
            found = _found(kind, one["asset"], find)
            if found.type and found.type != one["type"]:
                raise UsageError(f"the data {found.asset} is a {found.type}", hint=f"type: {found.type}")
        inputs[name]["asset"] = str(found.asset)
    for name, place in spec.output_places.items():
        with run.merged.at(f"outputs.{name}"):
            _check_datastore(place.get("uri", ""), assets)
    return replace(run, spec=replace(spec, inputs=inputs))


def _check_datastore(uri: str, assets: RegisteredAssets) -> None:
    """Raises NotFound for a datastore of the workspace that is not there. The long form may name another workspace."""
    match = _DATASTORE.match(uri)
    if match is not None and not assets.has_datastore(match[1]):
        raise NotFound(f"{uri} is not in a datastore of the workspace", hint="az ml datastore list")


def _found(kind: str, name: str, find: Callable[[AssetName], PresentAsset | None]) -> PresentAsset:
    asset = parse_asset(name)
    if asset is None:
        raise SettingsError(f"{name} is not the name of a registered {kind}", hint="azureml:NAME:VERSION")
    found = find(asset)
    if found is None:
        raise NotFound(f"the workspace has no {kind} {name}", hint=f"az ml {kind} list -o table")
    return found


def _with_downloads(run: CheckedRun) -> CheckedRun:
    """On this machine such inputs are datasets that a submit downloads. Raises SettingsError for what it cannot."""
    spec, downloads = run.spec, dict(run.downloads)
    inputs = {name: dict(one) for name, one in spec.inputs.items()}
    for name, one in spec.assets.items():
        address, line = filled(one["asset"], run.secrets), run.merged.lines.get(f"inputs.{name}", "")
        if parse_asset(address) is None and not _DOWNLOADED.match(address):
            raise SettingsError(
                f"{line}: {masked(address)} can be read on Azure ML's nodes only",
                hint="submit it in a cloud workspace, or name a file or folder of this project",
            )
        try:
            last = unquote(urlsplit(address).path.rstrip("/").rpartition("/")[2])
        except ValueError as error:
            raise SettingsError(f"{line}: {masked(address)} is not a valid URL", hint="correct it") from error
        file_name = last if _PLAIN_NAME.fullmatch(last) and "://" in address else "data"
        key = hashlib.sha256(f"{one['type']} {address}".encode()).hexdigest()[:16]
        dataset = f"{INPUTS}/{key}/{file_name}"
        inputs[name] = {"dataset": dataset, "type": one["type"], "from": masked(address)}
        downloads[dataset] = Address(address, is_file=one["type"] == "uri_file", line=line)
    kept = {name for name in spec.variables if not name.startswith(f"{VARIABLE_PREFIX}INPUT_")}
    variables = {name: value for name, value in spec.variables.items() if name in kept}
    return replace(
        run,
        spec=replace(spec, inputs=inputs, variables=variables),
        downloads=downloads,
        secrets={name: value for name, value in run.secrets.items() if name in kept},
    )


def bring(context: Context, dataset: str, address: Address) -> None:
    """Have what the address names at the dataset's path. Without a network, what was downloaded before is used.

    Raises NotFound, RightsError, SettingsError (what is missing to read it), IntegrityError, ServiceUnavailable.
    """
    project, sink = context.project, context.sink
    project.ensure_state_dir()
    target = project.dataset_path(dataset)
    if address.url.startswith("file:"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            target.symlink_to(unquote(urlsplit(address.url).path))
        return
    with at_line(address.line):
        download = _Download(target, address, context)
        try:
            download.bring()
        except ServiceUnavailable as error:
            if not download.was_whole:
                raise
            sink(
                Warned(f"{_shown(address.url)} cannot be checked for changes, so the earlier download is used: {error}")
            )
        except OSError as error:
            raise disk_error(error, str(target)) or RightsError(f"cannot write {target}: {error}") from error
    with suppress(OSError):
        os.utime(target.parent)
        _make_room(project.inputs_dir, target.parent)


class _Download:
    def __init__(self, target: Path, address: Address, context: Context) -> None:
        self._target = target
        self._address = address
        self._open_address = context.open_address
        self._sink = context.sink
        self.was_whole = False
        """Whether an earlier download can be used; known once this one has begun."""
        self._note = target.parent.parent / f"{target.parent.name}.json"
        """The server's own tag of the content, by which it answers later whether that has changed."""

    def bring(self) -> None:
        url = https_of(self._address.url)
        is_blob = container_of(url) is not None
        if not self._address.is_file and not is_blob and url:
            raise SettingsError(
                f"{_shown(url)} is not a folder that can be listed", hint="type: uri_file, for one file"
            )
        try:
            if url and self._address.is_file:
                self._bring_file(url)
            else:
                self._bring_from_store(is_public=bool(url))
        except (NotFound, RightsError) as error:
            if not is_blob:
                raise
            try:
                self._bring_from_store(is_public=False)  # one that is not public looks like one that is not there
            except LoginError:
                raise type(error)(f"{error.message}, without a login", hint="az login") from error

    def _bring_file(self, url: str) -> None:
        known = self._known()
        temporary = temporary_near(self._target)
        self._target.parent.mkdir(parents=True, exist_ok=True)
        try:
            from amlctl.azure_access.download import download_file  # imports azure.core

            found = download_file(
                url, temporary, known["etag"], shown=_shown(url), variables=os.environ, tell=self._sink
            )
            if found is None:
                return
            temporary.replace(self._target)
        finally:
            temporary.unlink(missing_ok=True)
        self._write_note(is_whole=True, etag=found)
        self._tell(1, self._target.stat().st_size)

    def _bring_from_store(self, *, is_public: bool) -> None:
        """Files whose size and time are those of before are not downloaded again."""
        known = self._known()
        store, key = self._open_address(self._address.url, is_public)
        with ended_by_interrupt(store):
            there = self._listed(store, key)
            had = known["files"]
            wanted = [name for name, one in there.items() if had.get(name) != one or not (self._target / name).exists()]
            for name in wanted:
                if name and not is_valid_key(name):
                    raise IntegrityError(f"{name!r} of {_shown(self._address.url)} is not a path of a file")
            if wanted:
                kept = {name: one for name, one in there.items() if name not in wanted}
                self._write_note(is_whole=False, files=kept)

            def download(name: str) -> int:
                path = self._target / name if name else self._target
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = temporary_near(path)
                try:
                    temporary.touch()
                    written = store.download(f"{key.rstrip('/')}/{name}".strip("/") if name else key, temporary)
                    if written != there[name][0]:
                        raise IntegrityError(f"{name or key} has {written} bytes, not {there[name][0]}: it has changed")
                    temporary.replace(path)
                finally:
                    temporary.unlink(missing_ok=True)
                return written

            done = sum(in_parallel(download, wanted, min(store.concurrency, 16)))
        if not self._address.is_file:
            for path in [path for path in self._target.rglob("*") if path.is_file()]:
                if path.relative_to(self._target).as_posix() not in there:
                    path.unlink()
        self._write_note(is_whole=True, files=there)
        if wanted:
            self._tell(len(wanted), done)

    def _listed(self, store: Store, key: str) -> dict[str, list[float]]:
        """Size in bytes and time of each file, by its path below the target (empty: the target is the file)."""
        if self._address.is_file:
            entry = store.info(key)
            entries = [] if entry is None else [entry._replace(key="")]
        else:
            prefix = key and f"{key.rstrip('/')}/"
            listed = [one._replace(key=one.key[len(prefix) :]) for one in store.list(prefix)]
            names = files_among({one.key: one.size_bytes for one in listed if one.key})
            entries = [one for one in listed if one.key in names]
        if not entries:
            raise NotFound(f"{_shown(self._address.url)} not found", hint="check the path, and the type")
        return {entry.key: [entry.size_bytes, entry.modified_at] for entry in entries}

    def _known(self) -> dict[str, Any]:
        """What was noted: the `etag` of a file, or of each of several `files` its size and time."""
        found = kept_json(self._note) if self._target.exists() else {}
        self.was_whole = bool(found.get("is_whole"))
        files = found.get("files")
        return {"etag": str(found.get("etag") or ""), "files": files if isinstance(files, dict) else {}}

    def _write_note(self, *, is_whole: bool, **content: Any) -> None:
        write_json(self._note, {"url": _shown(self._address.url), "is_whole": is_whole, **content})

    def _tell(self, files: int, size_bytes: int) -> None:
        self._sink(Note(f"downloaded {_shown(self._address.url)}: {count(files, 'file')}, {size(size_bytes)}"))


def _shown(url: str) -> str:
    """Without its query, which may hold a signature."""
    return masked(url.partition("?")[0])


def _make_room(folder: Path, kept: Path) -> None:
    """Remove what was used least recently, until the rest is within the limit."""
    sizes = {}
    for one in folder.iterdir():
        if one.is_dir():
            sizes[one] = sum(os.lstat(os.path.join(at, name)).st_size for at, _, names in walk(one) for name in names)
    for one in sorted(sizes, key=lambda path: path.stat().st_mtime):
        if sum(sizes.values()) <= _LIMIT_BYTES:
            return
        if one != kept:
            remove_tree(one, ignore_errors=True)
            del sizes[one]
