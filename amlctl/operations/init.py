"""Make a folder a project; what is there already is never overwritten."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from amlctl.errors import RightsError, UsageError

_FOLDERS = ("pipeline", "data_blobs/raw", "data_blobs/working", "outputs", "compute")
_TEMPLATES = {
    ".amlctl.toml": "amlctl.toml",
    "pipeline/file_paths.py": "file_paths.py",
    "pptdaml.yaml": "pptdaml.yaml",
    "compute/local.yaml": "local.yaml",
}


@dataclass(frozen=True)
class InitResult:
    """Paths relative to the folder; folders end with `/`."""

    created: list[str]
    kept: list[str]

    def to_json(self) -> dict[str, Any]:
        return {"created": self.created, "kept": self.kept}


def init(folder: Path) -> InitResult:
    """Raises UsageError (a file stands where the folder shall be), RightsError."""
    created: list[str] = []
    kept: list[str] = []
    templates = files("amlctl.operations") / "templates"
    try:
        for name in _FOLDERS:
            is_there = (folder / name).is_dir()
            (folder / name).mkdir(parents=True, exist_ok=True)
            (kept if is_there else created).append(f"{name}/")
        for name, template in _TEMPLATES.items():
            try:
                with (folder / name).open("xb") as file:
                    file.write((templates / template).read_bytes())
                created.append(name)
            except FileExistsError:
                kept.append(name)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"{error.filename} is a file, where init needs a folder", hint="choose another folder"
        ) from error
    except PermissionError as error:
        raise RightsError(f"{error.filename} cannot be written: {error.strerror}", hint="check its rights") from error
    return InitResult(created, kept)
