"""Imports that a script cannot do without."""

from __future__ import annotations

from amlctl.operations.submit.script_imports import imports

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
