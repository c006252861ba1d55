"""The tools that amlctl starts for itself: the environment variables of Python, pip, conda and git, and where uv is.

What the caller's shell or pip.conf says must not change what these tools do: `PIP_TARGET` would install elsewhere,
`PYTHONPATH` would mix other packages in, `GIT_DIR` would ask another repository. What says where packages come from and
how to reach them (indexes, certificates, proxies) stays in force. Lists of what is kept are shorter than lists of
what is not, and do not get out of date when a tool gets a new option.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_OWN_PREFIXES = ("PYTHON", "PIP_", "UV_", "CONDA_", "MAMBA_", "_CE_", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
"""Settings of Python, pip, uv and conda, and of the environment that the caller is in."""

# fmt: off
_CONDA_KEPT = frozenset((
    "CHANNELS", "CHANNEL_ALIAS", "CUSTOM_CHANNELS", "CUSTOM_MULTICHANNELS", "DEFAULT_CHANNELS",
    "MIGRATED_CHANNEL_ALIASES", "CHANNEL_PRIORITY", "SSL_VERIFY", "CLIENT_SSL_CERT", "CLIENT_SSL_CERT_KEY",
    "PROXY_SERVERS", "PKGS_DIRS", "OFFLINE", "ROOT_PREFIX", "ROOT", "REMOTE_CONNECT_TIMEOUT_SECS",
    "REMOTE_READ_TIMEOUT_SECS", "REMOTE_MAX_RETRIES", "REMOTE_BACKOFF_FACTOR", "REPODATA_THREADS", "FETCH_THREADS",
    "SOLVER", "OVERRIDE_CUDA", "OVERRIDE_GLIBC", "OVERRIDE_LINUX", "OVERRIDE_OSX",
))
# fmt: on
"""Settings of conda and mamba (after `CONDA_` or `MAMBA_`) that say where packages come from."""

# fmt: off
_GIT_DROPPED = frozenset((
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_PREFIX", "GIT_CEILING_DIRECTORIES", "GIT_DISCOVERY_ACROSS_FILESYSTEM",
    "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS",
    "GIT_ICASE_PATHSPECS", "GIT_DEFAULT_HASH", "GIT_TRACE", "GIT_TRACE_SETUP", "GIT_EXTERNAL_DIFF",
    "GIT_REDIRECT_STDOUT", "GIT_REDIRECT_STDERR", "GIT_ATTR_SOURCE",
))
# fmt: on
"""Which repository and which paths git works on; how it connects and who the user is stays."""

# fmt: off
PIP_KEPT = frozenset((
    "index-url", "pypi-url", "extra-index-url", "find-links", "no-index", "trusted-host", "cert", "client-cert",
    "proxy", "timeout", "default-timeout", "retries", "resume-retries", "keyring-provider", "cache-dir",
    "no-cache-dir", "only-binary", "no-binary", "prefer-binary", "constraint", "build-constraint", "use-feature",
    "use-deprecated", "progress-bar", "no-color",
))
# fmt: on
"""Settings of pip that say where packages come from and how to reach them. A constraint is among them: it bounds which
releases may be chosen, as an index does, and administrators set it for a whole machine."""

# fmt: off
_UV_KEPT = frozenset((
    "INDEX", "DEFAULT_INDEX", "INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "INDEX_STRATEGY", "INSECURE_HOST",
    "KEYRING_PROVIDER", "NATIVE_TLS", "SYSTEM_CERTS", "HTTP_TIMEOUT", "REQUEST_TIMEOUT", "HTTP_RETRIES", "OFFLINE",
    "CACHE_DIR", "NO_CACHE", "LINK_MODE", "CONCURRENT_DOWNLOADS", "CONCURRENT_BUILDS", "CONCURRENT_INSTALLS",
    "CONSTRAINT", "BUILD_CONSTRAINT", "EXCLUDE_NEWER", "TORCH_BACKEND", "CONFIG_FILE", "NO_CONFIG",
    "PYTHON_INSTALL_DIR",
))
# fmt: on
"""The same of uv (after `UV_`); `UV_INDEX_NAME_USERNAME` and `…_PASSWORD` are logins to an index."""

_UV_PATHS = ("UV_FIND_LINKS", "UV_CONSTRAINT", "UV_BUILD_CONSTRAINT", "UV_CACHE_DIR", "UV_CONFIG_FILE")

_PATHS = ("find-links", "constraint", "build-constraint", "cert", "client-cert", "cache-dir")
"""Settings of pip that may hold paths relative to the caller's folder."""
_LISTS = ("PIP_FIND_LINKS", "PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT", "UV_CONSTRAINT", "UV_BUILD_CONSTRAINT")
"""Those of several values, split at white space."""


def tool_variables(inherited: Mapping[str, str]) -> dict[str, str]:
    """For Python itself, conda and git."""
    return {name: value for name, value in inherited.items() if _is_kept(name)}


def uv_variables(inherited: Mapping[str, str]) -> dict[str, str]:
    """The settings of uv that say where packages come from and how to reach them."""
    return {
        name: value
        for name, value in inherited.items()
        if name.startswith("UV_") and (name[3:] in _UV_KEPT or name.endswith(("_USERNAME", "_PASSWORD")))
    }


def script_base_variables(inherited: Mapping[str, str], *, is_conda: bool) -> dict[str, str]:
    """What a script in an environment of its own inherits: everything except what would mix another environment in."""
    kept = {name: value for name, value in inherited.items() if name not in _MIXED_IN}
    if kept.get("MPLBACKEND", "").startswith("module://"):  # a notebook's own, from a package of its environment
        del kept["MPLBACKEND"]
    if is_conda:  # a conda environment also sees ~/.local, a virtual environment does not
        kept["PYTHONNOUSERSITE"] = "1"
    return kept


# fmt: off
_MIXED_IN = frozenset((
    "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONPLATLIBDIR", "PYTHONEXECUTABLE",
    "__PYVENV_LAUNCHER__", "VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "CONDA_SHLVL",
    "CONDA_PROMPT_MODIFIER",
))
# fmt: on


def _is_kept(name: str) -> bool:
    if name in _GIT_DROPPED:
        return False
    for prefix in ("CONDA_", "MAMBA_"):
        if name.startswith(prefix):
            return name[len(prefix) :] in _CONDA_KEPT
    return not name.startswith(_OWN_PREFIXES)


def with_absolute_paths(inherited: Mapping[str, str], cwd: str) -> dict[str, str]:
    """Variables of pip and uv with absolute paths, since our tools work in folders of their own."""
    variables = dict(inherited)
    for name in ("PIP_CONFIG_FILE", *map(pip_variable, _PATHS), *_UV_PATHS):
        if variables.get(name):
            separator = "," if name == "UV_FIND_LINKS" else " "
            words = variables[name].split(separator) if name in (*_LISTS, "UV_FIND_LINKS") else [variables[name]]
            variables[name] = separator.join(_absolute(word, cwd) for word in words if word)
    return variables


def _absolute(path: str, cwd: str) -> str:
    return path if "://" in path or path[:1] in "/~" else os.path.join(cwd, path)


def pip_setting(name: str) -> str:
    """`PIP_EXTRA_INDEX_URL` is pip's setting `extra-index-url`; empty for other variables."""
    if not name.startswith("PIP_") or name == "PIP_CONFIG_FILE":
        return ""
    return name[len("PIP_") :].lower().replace("_", "-")


def pip_variable(setting: str) -> str:
    return "PIP_" + setting.upper().replace("-", "_")


def answer_of(
    command: Sequence[str], timeout_s: float, *, variables: Mapping[str, str], folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Of a program that is asked for something, and reads nothing. Raises OSError, subprocess.TimeoutExpired."""
    return subprocess.run(
        command,
        cwd=folder,
        env=dict(variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )


def find_uv(variables: Mapping[str, str]) -> str:
    """Path of uv: the one that amlctl was installed with, else one on the PATH; empty without."""
    try:
        from uv import find_uv_bin

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        return shutil.which("uv", path=variables.get("PATH")) or ""
