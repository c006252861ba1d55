"""Every test starts without this machine's settings: no AMLCTL_ or AZURE_ variable, a home of its own."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.support.azurite import Azurite, CannotInstallError, installed, running_azurite
from tests.support.warm_command import SDKS, WarmCommand, warm_command

if TYPE_CHECKING:
    from tests.support.azureml_service import AzureMLService

_SCREEN_VARIABLES = ("NO_COLOR", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "COLUMNS", "LINES", "TERMINAL_WIDTH")
_PYTHON_VARIABLES = ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")
"""Users have no such thing: with the one a full disk under stdout is met earlier, with the other each run compiles its
runtime."""
_home = pytest.StashKey[Path]()


settings.register_profile(
    "amlctl", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("amlctl")  # a machine with other work fails no test


def pytest_configure(config: pytest.Config) -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        if (
            signal.getsignal(number) is signal.SIG_IGN
        ):  # by nohup or a shell's background: commands would ignore it, too
            signal.signal(number, signal.SIG_DFL)
    _keep_package_settings()
    for name in list(os.environ):
        is_ours = name.startswith(("AMLCTL_", "AZURE_", "XDG_")) and not name.startswith("AMLCTL_TEST_")
        if is_ours or name in (*_SCREEN_VARIABLES, *_PYTHON_VARIABLES):
            del os.environ[name]
    home = Path(tempfile.mkdtemp(prefix="amlctl-tests-home-"))
    config.stash[_home] = home
    os.environ["HOME"] = str(home)
    for name, folder in (
        ("CONFIG", ".config"),
        ("CACHE", ".cache"),
        ("DATA", ".local/share"),
        ("STATE", ".local/state"),
    ):
        os.environ[f"XDG_{name}_HOME"] = str(home / folder)


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(config.stash[_home], ignore_errors=True)


def _keep_package_settings() -> None:
    """Packages are installed with the real pip and npm: their registries and caches are the user's, wherever HOME
    points."""
    home = Path.home()
    config_home = Path(os.environ.get("XDG_CONFIG_HOME", home / ".config"))
    cache_home = Path(os.environ.get("XDG_CACHE_HOME", home / ".cache"))
    for candidate in (
        config_home / "pip/pip.conf",
        home / "Library/Application Support/pip/pip.conf",
        home / ".pip/pip.conf",
    ):
        if candidate.is_file():
            os.environ.setdefault("PIP_CONFIG_FILE", str(candidate))
            break
    os.environ.setdefault("PIP_CACHE_DIR", str(cache_home / "pip"))
    os.environ.setdefault("NPM_CONFIG_USERCONFIG", str(home / ".npmrc"))
    os.environ.setdefault("NPM_CONFIG_CACHE", str(home / ".npm"))
    os.environ.setdefault("TESTS_CACHE", str(cache_home))


@pytest.fixture(scope="session")
def azurite_installed() -> None:
    """What needs Azurite is skipped where it cannot be installed, and fails in CI."""
    try:
        installed()
    except CannotInstallError as error:
        if "CI" in os.environ:
            raise
        pytest.skip(f"Azurite cannot be installed (docs/contributing.md): {error}")


@pytest.fixture(scope="session")
def azurite(azurite_installed: None) -> Iterator[Azurite]:
    """The blob service of this test process, started with the first test that wants it."""
    with running_azurite() as service:
        yield service


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmCommand]:
    """Starts commands of this test process without the time for imports."""
    with warm_command() as command:
        yield command


@pytest.fixture(scope="session")
def warm_sdks() -> Iterator[WarmCommand]:
    """The same with the SDKs of Azure imported, which makes each fork dearer, and with short pauses."""
    with warm_command(*SDKS, "tests.support.short_waits") as command:
        yield command


@pytest.fixture(scope="session")
def azureml(azurite: Azurite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzureMLService]:
    """The Azure ML of this test process. Who sets a fault does it within `azureml.faults.while_testing()`."""
    from tests.support.azureml_service import AzureMLService  # imports the SDK of blobs, which few tests need

    with AzureMLService(tmp_path_factory.mktemp("azureml"), azurite) as service:
        gc.collect()
        gc.freeze()  # the SDK's modules: `sdk_leftovers` looks through what tests have made alone
        yield service


@pytest.fixture(autouse=True)
def sdk_leftovers(request: pytest.FixtureRequest) -> Iterator[None]:
    """The stock SDK leaves the sockets of broken connections to the collector: they go with the test that used it, and
    no later one is blamed for them."""
    yield
    if "azureml" in request.fixturenames:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        gc.freeze()  # modules of the SDK that came along since: to look through them takes longer than most tests
