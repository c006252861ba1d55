"""`init`: make a folder a project. What is there already is never overwritten."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from amlctl.errors import RightsError, UsageError
from amlctl.localfs.disk_errors import disk_error

_FOLDERS = ("pipeline", "data_blobs/raw", "data_blobs/working", "outputs", "compute")
_TEMPLATES = {
    ".amlctl.toml": "amlctl.toml",
    "pipeline/file_paths.py": "file_paths.py",
    "pptdaml.yaml": "pptdaml.yaml",
    "compute/local.yaml": "local.yaml",
}
"""File of the project, and the file of `templates/` that it begins as."""


@dataclass(frozen=True)
class InitResult:
    """Paths relative to the folder; folders end with `/`."""

    created: list[str]
    kept: list[str]

    def to_json(self) -> dict[str, Any]:
        return {"created": self.created, "kept": self.kept}


def init(folder: Path) -> InitResult:
    """Raises UsageError (a file stands where a folder is needed), RightsError (disk full)."""
    result = InitResult([], [])
    templates = files("amlctl.operations") / "templates"
    path = folder
    try:
        for name in _FOLDERS:
            path = folder / name
            is_new = not path.is_dir()
            path.mkdir(parents=True, exist_ok=True)
            (result.created if is_new else result.kept).append(f"{name}/")
        for name, template in _TEMPLATES.items():
            path = folder / name
            is_new = _write_new(path, (templates / template).read_bytes())
            (result.created if is_new else result.kept).append(name)
    except (FileExistsError, NotADirectoryError) as error:
        message = f"{error.filename} is a file, and init needs a folder there"
        raise UsageError(message, hint="choose another folder, or move the file away") from error
    except OSError as error:
        hint = f"check who may write in {folder}"
        told = disk_error(error, str(path), rights_hint=hint)
        raise told or RightsError(f"cannot make {path}: {error.strerror}", hint=hint) from error
    return result


def _write_new(path: Path, content: bytes) -> bool:
    """False, and nothing done, where something of that name is there; a half-written file does not stay."""
    try:
        with path.open("xb") as file:
            try:
                file.write(content)
                file.flush()
            except OSError:
                path.unlink()
                raise
    except FileExistsError:
        return False
    return True
