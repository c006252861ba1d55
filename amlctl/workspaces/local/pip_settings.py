"""What pip's configuration files and variables say of packages, for pip and for uv.

The files are read here, by pip's rules: asking pip itself takes 0.3 s, and uv needs no pip. What says where packages
come from is passed on as variables; `PIP_CONFIG_FILE` then names no file, so that nothing else of it counts.
Rules: https://pip.pypa.io/en/stable/topics/configuration/ (read 2026-11).
"""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from amlctl.errors import SettingsError
from amlctl.localfs.tool_variables import PIP_KEPT, pip_setting, pip_variable, tool_variables, uv_variables

_SECTIONS = ("global", "install")
"""Of a configuration file; the later one takes precedence, and variables over both."""
# fmt: off
_HARMLESS = frozenset((
    "disable-pip-version-check", "no-input", "root-user-action", "verbose", "quiet", "log",
    "no-python-version-warning",
))
# fmt: on
"""Not passed on, and not reported either."""
_BOUNDS = ("constraint", "build-constraint", "only-binary", "no-binary")
_OFF = frozenset(("", "0", "false", "no", "off", "n", "f"))


@dataclass(frozen=True)
class PipSettings:
    """`kept` says where packages come from, by the names of pip's settings; `unused` names the settings that are
    ignored."""

    kept: Mapping[str, str]
    unused: tuple[str, ...]
    inherited: Mapping[str, str]

    def is_on(self, name: str) -> bool:
        return self.kept.get(name, "").lower() not in _OFF

    @property
    def bounds(self) -> Mapping[str, str]:
        """The caller's settings that limit which releases may be chosen, by variable or name in pip.conf."""
        found: dict[str, str] = {}
        for setting in (name for name in _BOUNDS if self.is_on(name)):
            variable, value = pip_variable(setting), " ".join(self.kept[setting].split())
            if self.inherited.get(variable):
                found[variable] = value
            else:
                found[setting] = value
        if self.inherited.get("UV_CONSTRAINT"):
            found["UV_CONSTRAINT"] = self.inherited["UV_CONSTRAINT"]
        return found

    @property
    def for_pip(self) -> dict[str, str]:
        kept = {pip_variable(name): value for name, value in self.kept.items()}
        if kept.get("PIP_RETRIES") == "0":
            kept["PIP_RETRIES"] = "1"  # without a retry pip does not report that it cannot reach an index
        variables = {**tool_variables(self.inherited), **kept, "PIP_CONFIG_FILE": os.devnull}
        return {**variables, "PYTHONNOUSERSITE": "1", "PYTHONUTF8": "1"}

    @property
    def for_uv(self) -> dict[str, str]:
        """uv's own variables take precedence over what is set for pip."""
        own = uv_variables(self.inherited)
        translated = {
            variable: self.kept[name].replace("\n", " ").strip()
            for name, variable, others in _UV_VARIABLES
            if self.kept.get(name) and not any(self.inherited.get(one) for one in (variable, *others))
        }
        if "UV_FIND_LINKS" in translated:
            translated["UV_FIND_LINKS"] = ",".join(translated["UV_FIND_LINKS"].split())
        if "UV_KEYRING_PROVIDER" in translated:
            is_used = translated["UV_KEYRING_PROVIDER"] != "disabled"
            translated["UV_KEYRING_PROVIDER"] = "subprocess" if is_used else "disabled"
        if self.is_on("no-cache-dir"):
            translated["UV_NO_CACHE"] = "1"
        if "truststore" in self.kept.get("use-feature", ""):
            translated["UV_SYSTEM_CERTS"] = translated["UV_NATIVE_TLS"] = "1"
        return {**tool_variables(self.inherited), **_FOR_UV, **translated, **own}

    @property
    def uv_options(self) -> list[str]:
        """What uv takes as options only."""
        options = ["--no-index"] if self.is_on("no-index") else []
        for name in ("only-binary", "no-binary"):
            for package in self.kept.get(name, "").replace(",", " ").split():
                options += [f"--{name}", package]
        return options


_UV_VARIABLES = (
    ("index-url", "UV_DEFAULT_INDEX", ("UV_INDEX_URL",)),
    ("pypi-url", "UV_DEFAULT_INDEX", ("UV_INDEX_URL",)),
    ("extra-index-url", "UV_INDEX", ("UV_EXTRA_INDEX_URL",)),
    ("find-links", "UV_FIND_LINKS", ()),
    ("trusted-host", "UV_INSECURE_HOST", ()),
    ("constraint", "UV_CONSTRAINT", ()),
    ("build-constraint", "UV_BUILD_CONSTRAINT", ()),
    ("default-timeout", "UV_HTTP_TIMEOUT", ("UV_REQUEST_TIMEOUT",)),
    ("timeout", "UV_HTTP_TIMEOUT", ("UV_REQUEST_TIMEOUT",)),
    ("retries", "UV_HTTP_RETRIES", ()),
    ("keyring-provider", "UV_KEYRING_PROVIDER", ()),
    ("cert", "SSL_CERT_FILE", ("SSL_CERT_DIR",)),
    ("client-cert", "SSL_CLIENT_CERT", ()),
    ("proxy", "HTTPS_PROXY", ("https_proxy",)),
    ("proxy", "HTTP_PROXY", ("http_proxy",)),
)
"""pip's setting, uv's variable for it, and other variables of the same meaning."""
_FOR_UV = {
    "UV_INDEX_STRATEGY": "unsafe-best-match",
    "UV_NO_PROGRESS": "1",
    "UV_NO_WRAP": "1",
    "UV_PYTHON_DOWNLOADS": "never",
    "NO_COLOR": "1",
}
"""Among several indexes the best version counts, as with pip, which Azure ML uses: so both find the same packages."""


def pip_settings(inherited: Mapping[str, str]) -> PipSettings:
    """Raises SettingsError (a file that cannot be read)."""
    found = _of_files(inherited)
    for name, value in inherited.items():
        setting = pip_setting(name)
        if setting:
            found[setting] = value
    unused = sorted(
        name
        for name, value in found.items()
        if name not in PIP_KEPT and name not in _HARMLESS and value.lower() not in _OFF
    )
    kept = {name: value for name, value in found.items() if name in PIP_KEPT and value}
    return PipSettings(kept, tuple(unused), inherited)


def _of_files(inherited: Mapping[str, str]) -> dict[str, str]:
    if inherited.get("PIP_CONFIG_FILE") == os.devnull:
        return {}
    found: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for path in _files(inherited):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            reason = str(error).partition("\n")[0]
            raise SettingsError(
                f"pip's settings cannot be read: {path}: {reason}", hint="pip config debug lists its files"
            ) from error
        except OSError:
            continue  # as pip does
        for section in _SECTIONS:
            if parser.has_section(section):
                found[section].update((_setting(name), value) for name, value in parser.items(section))
    return {name: value for section in _SECTIONS for name, value in found[section].items()}


def _setting(name: str) -> str:
    return name.lower().removeprefix("--").replace("_", "-")


def _files(inherited: Mapping[str, str]) -> Iterator[Path]:
    """In the order in which they are read: a later one takes precedence."""
    home = Path(inherited.get("HOME") or os.path.expanduser("~"))
    is_mac = sys.platform == "darwin"
    if is_mac:
        yield Path("/Library/Application Support/pip/pip.conf")
    else:
        for folder in (inherited.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep):
            yield Path(folder, "pip", "pip.conf")
    yield Path("/etc/pip.conf")
    given = inherited.get("PIP_CONFIG_FILE")
    if not given or not os.path.exists(given):
        yield home / ".pip" / "pip.conf"
        application = home / "Library" / "Application Support" / "pip"
        config = Path(inherited.get("XDG_CONFIG_HOME") or home / ".config") / "pip"
        yield (application if is_mac and application.is_dir() else config) / "pip.conf"
    yield Path(sys.prefix, "pip.conf")
    if given:
        yield Path(given)
