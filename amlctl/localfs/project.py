"""A user's project folder: where its parts are, and which dataset a typed path means."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from amlctl.core.message import Command, Message, similar
from amlctl.errors import NotFound, RightsError, SettingsError, UsageError
from amlctl.localfs.disk_errors import disk_error
from amlctl.localfs.folders import STATE_FOLDER, close_to_others, is_open_to_others, make_private_folder
from amlctl.localfs.regular_file import open_regular

SETTINGS_FILE = ".amlctl.toml"
IN_PROJECT, INPUTS = "@project", "@inputs"
"""Begin the names of datasets that do not lie under `data_blobs/`, but in the project's folder and in `inputs_dir`."""
_ELSEWHERE = (IN_PROJECT, INPUTS)


@dataclass(frozen=True)
class Project:
    """The folders of one project. `root` is absolute; symlinks in it are left as they are."""

    root: Path

    @property
    def pipeline_dir(self) -> Path:
        return self.root / "pipeline"

    @property
    def data_blobs_dir(self) -> Path:
        return self.root / "data_blobs"

    @property
    def outputs_dir(self) -> Path:
        return self.root / "outputs"

    @property
    def compute_dir(self) -> Path:
        return self.root / "compute"

    @property
    def state_dir(self) -> Path:
        """`.amlctl/`: caches, local runs, local store. Never committed."""
        return self.root / STATE_FOLDER

    @property
    def inputs_dir(self) -> Path:
        """What job files name that lies outside of the project: downloads, and links to folders of this machine."""
        return self.state_dir / "inputs"

    @property
    def settings_file(self) -> Path:
        return self.root / SETTINGS_FILE

    @property
    def environment_file(self) -> Path:
        return self.root / "pptdaml.yaml"

    def dataset_name(self, path: str, cwd: Path) -> str:
        """The dataset that PATH means: relative to `cwd`, or to the root, or a dataset's name already.

        Of several readings the first that exists wins, else the first that lies under `data_blobs/`.
        Symlinks below `data_blobs/` are not resolved. Raises UsageError for a path that lies elsewhere.
        """
        readings = [name for name in self._readings(path, cwd) if name is not None]
        name = next((name for name in readings if os.path.lexists(self.dataset_path(name))), None)
        if name is None and readings and not os.path.lexists(cwd / path):
            name = readings[0]
        if not name:
            raise UsageError(
                f"{path!r} is not a dataset: datasets are files and folders under {self.data_blobs_dir}",
                hint=Message("for example: ", Command("sync", "data_blobs/working")),
            )
        return name

    def typed_path(self, path: str, cwd: Path) -> Path:
        """The file or folder that PATH means, with the same readings: the first under `data_blobs/` or `pipeline/` that
        exists, else the first that exists, else the first under these; absolute, also where it does not exist."""
        typed = [self.own_path(path, base) for base in (cwd, self.root, self.data_blobs_dir)]
        inside = [one for one in typed if {self.data_blobs_dir, self.pipeline_dir} & {one, *one.parents}]
        return next((one for one in [*inside, *typed] if os.path.lexists(one)), (inside or typed)[0])

    def own_path(self, path: str, base: Path) -> Path:
        """Absolute, without resolving links: what people see as inside a folder is inside. One that reaches the project
        by another name (through a link to it) gets the name that `root` has."""
        full = Path(os.path.abspath(base / os.path.expanduser(path)))
        if not full.is_relative_to(self.root):
            for folder in (full, *full.parents):
                if _is_same_folder(folder, self.root):
                    return self.root / full.relative_to(folder)
        return full

    def dataset_path(self, dataset: str) -> Path:
        first, _, rest = dataset.partition("/")
        return self.dataset_base(dataset) / (rest if first in _ELSEWHERE else dataset)

    def dataset_base(self, dataset: str) -> Path:
        """The folder that holds the dataset: `data_blobs/`, but for what job files name elsewhere."""
        first = dataset.partition("/")[0]
        return self.root if first == IN_PROJECT else self.inputs_dir if first == INPUTS else self.data_blobs_dir

    def ensure_state_dir(self) -> Path:
        """Make `.amlctl/`, for the user alone, with a `.gitignore` that keeps it out of Git. Raises RightsError."""
        ignore_file = self.state_dir / ".gitignore"
        try:
            make_private_folder(self.state_dir)
            if not ignore_file.exists():
                with open_regular(ignore_file, "wb") as file:
                    file.write(b"*\n")
            elif not self.is_state_writable():
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except OSError as error:
            hint = "check who owns the project's folder"
            found = disk_error(error, f"cannot write {self.state_dir}", rights_hint=hint)
            raise found or RightsError(f"cannot write {self.state_dir}: {error.strerror}", hint=hint) from error
        self.tidy_state()
        return self.state_dir

    def tidy_state(self) -> None:
        """Remove what killed commands have left in `.amlctl/`, and close it to other users if it is open to them.
        A store inside keeps its own modes: the folder around it keeps others out.
        """
        with suppress(OSError):
            from amlctl.localfs.atomic import remove_left_behind  # here, since completion is quick without it

            remove_left_behind(self.state_dir, with_folders=True)
        if is_open_to_others(self.state_dir):
            close_to_others(self.state_dir, but=self.state_dir / "store")

    def is_state_writable(self) -> bool:
        """Whether files can be made in `.amlctl/`, or it can be made itself."""
        folder = self.state_dir if self.state_dir.is_dir() else self.root
        return os.access(folder, os.W_OK | os.X_OK)

    def _readings(self, path: str, cwd: Path) -> Iterator[Optional[str]]:
        yield self._below_data_blobs(cwd / path)
        if not os.path.isabs(path):
            yield self._below_data_blobs(self.root / path)
            yield self._below_data_blobs(self.data_blobs_dir / path)

    def _below_data_blobs(self, path: Path) -> Optional[str]:
        """`path` relative to `data_blobs/` ("" for that folder itself), None if it lies outside.

        The root may be reached by another name (`/tmp` is a symlink on macOS; `data_blobs` may be one to a
        larger disk), so a parent that is the same folder counts as well.
        """
        full = Path(os.path.normpath(path))
        for folder in (full, *full.parents):
            if folder == self.data_blobs_dir or _is_same_folder(folder, self.data_blobs_dir):
                relative = full.relative_to(folder).as_posix()
                return "" if relative == "." else relative
        return None


def find_project(start: Path) -> Project:
    """The project that `start` lies in: the nearest folder upwards with a `.amlctl.toml`.

    Raises NotFound, SettingsError (something else has that name).
    """
    folder = Path(os.path.abspath(start))
    if not folder.is_dir():
        what = f"{start} is not a folder" if folder.exists() else f"folder {start} not found"
        raise NotFound(what, hint="--project DIR names a folder of the project")
    for candidate in (folder, *folder.parents):
        settings = candidate / SETTINGS_FILE
        if settings.is_file():
            return Project(candidate)
        if os.path.lexists(settings):
            what = "a folder" if settings.is_dir() else "a broken link" if settings.is_symlink() else "not a file"
            raise SettingsError(f"{settings} is {what}", hint=Message("move it away, then: ", Command("init")))
    raise NotFound(
        f"not in a project: no {SETTINGS_FILE} in {folder} or above it",
        hint=Message("cd to your project, or set one up here: ", Command("init")),
    )


def near_datasets(data_blobs: Path, dataset: str) -> list[str]:
    """Files and folders here whose names are like the first part of the dataset's name that is missing, as arguments of
    a command."""
    folder, missing = data_blobs, ""
    for missing in Path(dataset).parts:
        if not (folder / missing).is_dir():
            break
        folder /= missing
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [(folder / name).relative_to(data_blobs.parent).as_posix() for name in similar(missing, names)]


def _is_same_folder(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
