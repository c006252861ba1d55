"""What the figures depend on, without anything that names the machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path


def machine(folder: Path) -> str:
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {platform.system()}, "
        f"file system {file_system(folder)}, Python {platform.python_version()}"
    )


def versions() -> str:
    """Of amlctl, the libraries that it is measured with, and the peers."""
    ours = [f"{package} {version(package)}" for package in ("amlctl", "typer", "rich", "xxhash", "isal")]
    return ", ".join(ours + [_peer(program) for program in ("git", "find", "cp", "tar", "restic")])


def file_system(folder: Path) -> str:
    """Its type, as the list of mounts has it; `unknown` where the system has no such list."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "apfs or hfs" if sys.platform == "darwin" else "unknown"
    above = {str(path) for path in (folder.resolve(), *folder.resolve().parents)}
    fitting = [(len(fields[1]), position, fields[2]) for position, fields in enumerate(mounts) if fields[1] in above]
    return max(fitting)[2] if fitting else "unknown"


def _peer(program: str) -> str:
    if shutil.which(program) is None:
        return f"{program} not installed"
    asked = [program, "version"] if program == "restic" else [program, "--version"]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.splitlines()
    words = said[0].split() if said else []
    number = next((word for word in words if word[0].isdigit()), "of the system")
    return f"{program} {number}"
