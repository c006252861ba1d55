"""Wheels made on the spot, so that the real pip installs real packages without a network."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib import metadata
from pathlib import Path


def make_wheel(
    folder: Path, name: str, version: str = "1.0", *, text: str = "", requires: tuple[str, ...] = ()
) -> Path:
    """A wheel with one module of that name, which holds `text`."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    files = {
        f"{name}.py": text.encode(),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    return _write(folder / f"{name}-{version}-py3-none-any.whl", info, files)


def copy_installed(folder: Path, name: str) -> Path:
    """A wheel of a package that the tests' own interpreter has, for interpreters of the same version."""
    folder.mkdir(parents=True, exist_ok=True)
    package = metadata.distribution(name)
    tag = next(
        line.partition(": ")[2] for line in (package.read_text("WHEEL") or "").splitlines() if line.startswith("Tag: ")
    )
    info = f"{name}-{package.version}.dist-info"
    files = {
        str(file): Path(str(package.locate_file(file))).read_bytes()
        for file in package.files or ()
        if file.parts[0] in (name, info) and file.name not in ("RECORD", "INSTALLER", "REQUESTED")
        if file.suffix != ".pyc"
    }
    return _write(folder / f"{name}-{package.version}-{tag}.whl", info, files)


def _write(path: Path, info: str, files: dict[str, bytes]) -> Path:
    record = ""
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in files.items():
            wheel.writestr(zipfile.ZipInfo(name), data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(data)}\n"
        wheel.writestr(zipfile.ZipInfo(f"{info}/RECORD"), record + f"{info}/RECORD,,\n")
    return path
