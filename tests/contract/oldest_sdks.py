"""Run the tests of what touches Blob Storage with the oldest SDKs that `pyproject.toml` allows.

    python -m tests.contract.oldest_sdks [arguments of pytest]

Installs them beside the present ones, into a temporary folder that goes before them on the path.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

_PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
_TESTS = (
    "tests/contract/test_sdk_couplings.py",
    "tests/contract/test_azure_blob.py",
    "tests/faults/test_blob_service.py",
)
_OWN = ("azure-storage-blob", "azure-core")


def oldest() -> list[str]:
    """`NAME==VERSION` for each SDK of which the lower bound counts here."""
    bounds = dict(re.findall(r'"(azure-[a-z-]+)>=([0-9.]+)', _PYPROJECT.read_text()))
    return [f"{name}=={bounds[name]}" for name in _OWN]


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="oldest-sdks-") as folder:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, *oldest()]
        subprocess.run(pip, check=True)
        variables = {**os.environ, "PYTHONPATH": folder}
        shown = "import azure.core, azure.storage.blob as b; print(azure.core.__version__, b.__version__)"
        subprocess.run([sys.executable, "-c", shown], check=True, env=variables)
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *(arguments or _TESTS)], check=False, env=variables
        ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
