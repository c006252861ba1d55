"""Whether an environment is what was asked for: its own interpreter is asked, whatever the tool that made it said."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import amlctl
from amlctl.core.environment import OLDEST_PYTHON
from amlctl.workspaces.local.environments import python_of

_LIMIT_S = 120.0

_PROGRAM = """
import json, sys
wanted, package = json.loads(sys.argv[1]), sys.argv[2]
found = {"python": ".".join(map(str, sys.version_info[:3])), "missing": [], "error": ""}
if sys.version_info >= tuple(json.loads(sys.argv[3])):
    from importlib import metadata
    for name, version in wanted.items():
        try:
            present = metadata.version(name)
        except metadata.PackageNotFoundError:
            found["missing"].append(name)
        else:
            if version and present != version:
                found["missing"].append("%s==%s (it has %s)" % (name, version, present))
    try:
        import xxhash
        sys.path.append(package)
        import amlctl.runtime.node
    except Exception as error:
        found["error"] = "%s: %s" % (type(error).__name__, error)
print(json.dumps(found))
"""
"""The folder of amlctl goes last and late: what the environment lacks must not be found there."""


class Found(NamedTuple):
    """`wrong` is empty for an environment that can be used; `python` is its version."""

    wrong: str
    python: str = ""


def ask_environment(home: Path, packages: Mapping[str, str], variables: Mapping[str, str]) -> Found:
    """`packages` are names with the version that is wanted, or empty."""
    shipped = str(Path(amlctl.__file__).resolve().parent.parent)
    command = [str(python_of(home)), "-I", "-c", _PROGRAM, json.dumps(dict(packages)), shipped]
    try:
        done = subprocess.run(
            [*command, json.dumps(OLDEST_PYTHON)],
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_LIMIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Found(f"its Python cannot be started: {error}")
    try:
        found = json.loads(done.stdout.strip().splitlines()[-1])
        version = tuple(int(part) for part in found["python"].split("."))
        missing, failure = list(found["missing"]), str(found["error"])
    except (ValueError, LookupError, TypeError):
        told = done.stderr.strip().splitlines()
        return Found(f"its Python ended with exit code {done.returncode}{': ' + told[-1] if told else ''}")
    if version < OLDEST_PYTHON:
        return Found(f"it has Python {found['python']}; amlctl needs {'.'.join(map(str, OLDEST_PYTHON))} or newer")
    if missing:
        return Found(f"it does not have {', '.join(missing)}")
    return Found(f"amlctl's runtime cannot be imported: {failure}" if failure else "", found["python"])
