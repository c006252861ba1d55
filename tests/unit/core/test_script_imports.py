"""Imports that a script cannot do without, and which package may bring them."""

from __future__ import annotations

import pytest

from amlctl.core.import_names import may_bring, package_of
from amlctl.core.script_imports import imports

SCRIPT = """
import json, numpy as np
from sklearn.svm import SVC
from . import near
try:
    import optional
except ImportError:
    optional = None
try:
    import needed
finally:
    pass
if TYPE_CHECKING:
    import torch
if sys.platform == "win32":
    import winreg
else:
    import fcntl2
def later():
    import lazy
class Body:
    import inner
if __name__ == "__main__":
    import main_only
"""


def test_only_what_is_needed_counts() -> None:
    found = [(one.module, one.line, one.level) for one in imports(SCRIPT)]
    assert found == [
        ("json", 2, 0),
        ("numpy", 2, 0),
        ("sklearn.svm", 3, 0),
        ("sklearn.svm.SVC", 3, 0),
        ("", 4, 1),
        ("near", 4, 1),
        ("needed", 10, 0),
        ("inner", 22, 0),
        ("main_only", 24, 0),
    ]


@pytest.mark.parametrize(
    ("package", "module", "brings"),
    [
        *(("scikit-learn", "sklearn", True), ("opencv-python", "cv2", True), ("Pillow", "PIL", True)),
        *(("PyYAML", "yaml", True), ("google-cloud-storage", "google.cloud", True), ("ruamel.yaml", "ruamel", True)),
        *(("faiss-gpu", "faiss", True), ("psycopg2", "psycopg2", True), ("protobuf", "numpy", False)),
        *(("pandas", "numpy", False), ("torch", "torch", True), ("colorama", "yaml", False)),
    ],
)
def test_names_are_compared_generously(package: str, module: str, brings: bool) -> None:
    assert may_bring(package, module) is brings


def test_most_packages_are_named_as_their_module() -> None:
    assert package_of("numpy.linalg") == "numpy"
    assert package_of("sklearn.svm") == "scikit-learn"
