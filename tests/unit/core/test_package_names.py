"""Which package may bring a module."""

from __future__ import annotations

import pytest

from amlctl.core.package_names import may_bring, package_of


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
    found = [package_of(module) for module in ("numpy.linalg", "torch_geometric", "sklearn.svm", "cv2", "PIL", "yaml")]
    packages = ["numpy", "torch-geometric", "scikit-learn", "opencv-python-headless", "pillow", "pyyaml"]
    assert found == packages
