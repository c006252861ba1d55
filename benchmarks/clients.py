"""The programs that bring a folder into a Blob container and back, each at its best sensible settings."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas
from sandbox import Sandbox, amlctl

ACCOUNT = "devstoreaccount1"
_AZCOPY = "10.32.2"
_CONNECTIONS = "32"


@dataclass(frozen=True)
class Place:
    """What one client uses in one round: a container of its own and an empty folder for its state."""

    account_url: str
    key: str
    container: str
    state: Path

    @property
    def sas(self) -> str:
        return generate_account_sas(
            ACCOUNT,
            self.key,
            resource_types=ResourceTypes(service=True, container=True, object=True),
            permission=AccountSasPermissions(read=True, write=True, delete=True, list=True, add=True, create=True),
            expiry=datetime.now(UTC) + timedelta(days=1),
        )


@dataclass(frozen=True)
class Call:
    argv: list[str]
    cwd: Path
    environment: Mapping[str, str]


class Client(ABC):
    """`up` makes the container hold what the folder holds; `down` the folder what the container holds."""

    name: str
    settings: str

    def __init__(self, sandbox: Sandbox) -> None:
        self._environment = {
            name: value for name, value in sandbox.environment.items() if not name.startswith(("AZURE_", "RCLONE_"))
        }

    def missing(self) -> str | None:
        """Why it cannot be measured here."""
        return None

    def prepare(self, place: Place) -> Call | None:
        """Outside of the measured time, once a round."""
        return None

    @contextmanager
    def source(self, place: Place, tree: Path) -> Iterator[Path]:
        """Where the client wants to find the tree."""
        yield tree

    @abstractmethod
    def up(self, place: Place, tree: Path, operation: str) -> Call: ...

    @abstractmethod
    def down(self, place: Place, target: Path) -> Call: ...

    def arrived(self, target: Path, tree: Path) -> Path:
        """The folder below the target in which the tree is then."""
        return target


class Amlctl(Client):
    """Pushes from one project and pulls into another: the second knows nothing of the first."""

    def __init__(self, sandbox: Sandbox, name: str, layout: str) -> None:
        super().__init__(sandbox)
        self.name = name
        self.settings = f"amlctl sync --layout {layout}"
        self._layout = layout

    @contextmanager
    def source(self, place: Place, tree: Path) -> Iterator[Path]:
        home = place.state / "up/data_blobs/data"
        home.parent.mkdir(parents=True, exist_ok=True)
        tree.rename(home)
        try:
            yield home
        finally:
            home.rename(tree)

    def up(self, place: Place, tree: Path, operation: str) -> Call:
        extra = ["--delete", "--yes"] if self._layout == "mirror" and operation != "cold" else []
        return self._sync(place, place.state / "up", ["--layout", self._layout, *extra])

    def down(self, place: Place, target: Path) -> Call:
        target.mkdir(parents=True, exist_ok=True)
        return self._sync(place, target, ["--pull"])

    def arrived(self, target: Path, tree: Path) -> Path:
        return target / "data_blobs/data"

    def _sync(self, place: Place, project: Path, options: list[str]) -> Call:
        settings = project / ".amlctl.toml"
        if not settings.exists():
            (project / "data_blobs").mkdir(parents=True, exist_ok=True)
            settings.write_text("")
        store = f"{place.account_url}/{place.container}/benchmark"
        argv = [*amlctl(), "sync", "data_blobs/data", "--store", store, *options]
        own = {"AZURE_STORAGE_KEY": place.key, "XDG_CACHE_HOME": str(project / ".cache")}
        return Call(argv, project, {**self._environment, **own})


class AzCopy(Client):
    """As it comes it asks for each blob again that it has written; without that it needs half of the requests."""

    def __init__(self, sandbox: Sandbox, name: str, *, is_checking: bool) -> None:
        super().__init__(sandbox)
        self.name = name
        self._program = _installed_azcopy()
        self._checking = [] if is_checking else ["--check-length=false"]
        cold = " ".join(["azcopy copy --recursive", *self._checking])
        self.settings = f"{cold} (cold), azcopy sync --delete-destination=true (else)"

    def missing(self) -> str | None:
        if not self._program:
            return "no azcopy on the PATH and no npm to install it"
        tried = subprocess.run([self._program, "--version"], capture_output=True, text=True)
        needs = "(it needs libsecret; Debian: apt-get install libsecret-1-0)"
        return f"{tried.stderr.strip()} {needs}" if tried.returncode else None

    def up(self, place: Place, tree: Path, operation: str) -> Call:
        if operation == "cold":
            copied = ["copy", f"{tree}/*", self._url(place), "--recursive", *self._checking]
            return self._call(place, [*copied, "--from-to=LocalBlob"])
        synced = ["sync", str(tree), self._url(place), "--delete-destination=true"]
        return self._call(place, [*synced, "--from-to=LocalBlob"])

    def down(self, place: Place, target: Path) -> Call:
        if target.exists():
            synced = ["sync", self._url(place), str(target), "--delete-destination=true"]
            return self._call(place, [*synced, "--from-to=BlobLocal"])
        target.mkdir(parents=True)
        url = self._url(place).replace("?", "/*?", 1)
        return self._call(place, ["copy", url, str(target), "--recursive", "--from-to=BlobLocal"])

    def _url(self, place: Place) -> str:
        return f"{place.account_url}/{place.container}?{place.sas}"

    def _call(self, place: Place, arguments: list[str]) -> Call:
        own = {
            "AZCOPY_LOG_LOCATION": str(place.state),
            "AZCOPY_JOB_PLAN_LOCATION": str(place.state),
            "AZCOPY_DISABLE_SYSLOG": "true",
        }
        # AzCopy puts itself at 32 connections on a small machine and more on a large one.
        argv = [self._program, *arguments, "--log-level=NONE", "--output-level=quiet", "--skip-version-check"]
        return Call(argv, place.state, {**self._environment, **own})


class Rclone(Client):
    name = "rclone"
    settings = (
        f"rclone sync --fast-list --transfers {_CONNECTIONS} --checkers {_CONNECTIONS} (renamed: --track-renames)"
    )

    def missing(self) -> str | None:
        return None if shutil.which("rclone") else "no rclone on the PATH (Debian: apt-get install rclone)"

    def up(self, place: Place, tree: Path, operation: str) -> Call:
        renames = ["--track-renames"] if operation == "folder renamed" else []
        return self._sync(place, str(tree), f"az:{place.container}", renames)

    def down(self, place: Place, target: Path) -> Call:
        return self._sync(place, f"az:{place.container}", str(target), [])

    def _sync(self, place: Place, source: str, target: str, options: list[str]) -> Call:
        many = ["--fast-list", "--transfers", _CONNECTIONS, "--checkers", _CONNECTIONS]
        argv = ["rclone", "sync", source, target, *many, *options]
        return Call(argv, place.state, {**self._environment, **remote(place)})


class Restic(Client):
    """Its own Azure backend wants https and a host named after the account, so it goes through rclone, its standard
    way to other services."""

    name = "restic"
    settings = (
        f"restic backup over `rclone serve restic --stdio`, {_CONNECTIONS} connections of each, --compression off"
    )

    def missing(self) -> str | None:
        names = [name for name in ("restic", "rclone") if not shutil.which(name)]
        return f"no {' and no '.join(names)} on the PATH (Debian: apt-get install restic rclone)" if names else None

    def prepare(self, place: Place) -> Call | None:
        return self._call(place, ["init"])

    def up(self, place: Place, tree: Path, operation: str) -> Call:
        return self._call(place, ["backup", "--compression", "off", str(tree)])

    def down(self, place: Place, target: Path) -> Call:
        return self._call(place, ["restore", "latest", "--target", str(target)])

    def arrived(self, target: Path, tree: Path) -> Path:
        return target / tree.relative_to("/")

    def _call(self, place: Place, arguments: list[str]) -> Call:
        # rclone's calls are bounded by the sum of these two (12). With fewer than restic has connections, those that
        # wait fill the one HTTP/2 connection between the two, and both wait for ever (rclone 1.60.1, restic 0.14.0).
        bounds = {"RCLONE_TRANSFERS": _CONNECTIONS, "RCLONE_CHECKERS": _CONNECTIONS}
        own = {
            **bounds,
            "RESTIC_REPOSITORY": f"rclone:az:{place.container}/restic",
            "RESTIC_PASSWORD": "benchmark",
            "RESTIC_CACHE_DIR": str(place.state / "restic-cache"),
        }
        argv = ["restic", "--quiet", "-o", f"rclone.connections={_CONNECTIONS}", *arguments]
        return Call(argv, place.state, {**self._environment, **remote(place), **own})


class SdkPool(Client):
    name = "SDK pool"
    settings = "benchmarks/sdk_pool.py: azure-storage-blob, 32 threads"

    def up(self, place: Place, tree: Path, operation: str) -> Call:
        return self._call(place, "up", tree)

    def down(self, place: Place, target: Path) -> Call:
        return self._call(place, "down", target)

    def _call(self, place: Place, direction: str, folder: Path) -> Call:
        script = Path(__file__).with_name("sdk_pool.py")
        argv = [sys.executable, str(script), direction, place.account_url, place.container, str(folder)]
        return Call(argv, place.state, {**self._environment, "AZURE_STORAGE_KEY": place.key})


def clients(sandbox: Sandbox) -> list[Client]:
    """amlctl first: the others are compared with it."""
    ours = [Amlctl(sandbox, "amlctl", "auto"), Amlctl(sandbox, "amlctl mirror", "mirror")]
    azcopies = [
        AzCopy(sandbox, "AzCopy", is_checking=True),
        AzCopy(sandbox, "AzCopy unchecked", is_checking=False),
    ]
    return [*ours, *azcopies, Rclone(sandbox), Restic(sandbox), SdkPool(sandbox)]


def remote(place: Place) -> dict[str, str]:
    """rclone's remote `az`, for a service at any address: a SAS URL is the one way to name it."""
    return {
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_AZ_TYPE": "azureblob",
        "RCLONE_CONFIG_AZ_SAS_URL": f"{place.account_url}?{place.sas}",
        "RCLONE_CONFIG_AZ_NO_CHECK_CONTAINER": "true",
    }


def _installed_azcopy() -> str:
    """The program of the PATH, else of the npm package in the user's cache. Empty where there is neither."""
    found = shutil.which("azcopy")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / f"amlctl-tests/azcopy-{_AZCOPY}"
    program = cache / f"node_modules/@azure-tools/azcopy-linux/dist/bin/azcopy_linux_{_machine()}"
    if found or program.is_file():
        return found or str(program)
    npm = shutil.which("npm")
    if npm is None or sys.platform != "linux":
        return ""
    cache.mkdir(parents=True, exist_ok=True)
    wanted = f"@azure-tools/azcopy-linux@{_AZCOPY}"
    quiet = ["--silent", "--no-audit", "--no-fund"]
    subprocess.run([npm, "install", *quiet, "--prefix", str(cache), wanted], check=True, cwd=cache)
    if not program.is_file():
        return ""
    program.chmod(0o755)  # the package marks its launcher only
    return str(program)


def _machine() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
