"""Azure's SDKs are used by the adapters to Azure alone, and only as documented."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import amlctl

ROOT = Path(amlctl.__file__).parent
ADAPTERS = ("azure_access", "stores/azure_blob", "workspaces/azureml")
MODULES = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}


def _imported(path: Path) -> Iterator[str]:
    """Dotted names of all that a module imports, whole modules and names from them, also inside of functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _of_azure(path: Path) -> list[str]:
    return [name for name in _imported(path) if name.split(".")[0] in ("azure", "msal", "msrest")]


def test_adapters_alone_import_an_sdk() -> None:
    importing = {name for name, path in MODULES.items() if _of_azure(path)}
    assert importing
    assert [name for name in importing if not name.startswith(ADAPTERS)] == []


def test_no_private_name_of_an_sdk_is_imported() -> None:
    imported = [(name, one) for name, path in MODULES.items() for one in _of_azure(path)]
    assert [(name, one) for name, one in imported if "._" in f".{one}"] == []


def test_the_blob_client_is_the_sdk_s() -> None:
    """The store imports azure-storage-blob, and signs nothing itself."""
    imported = {
        one for name, path in MODULES.items() if name.startswith("stores/azure_blob") for one in _imported(path)
    }
    assert "azure.storage.blob.ContainerClient" in imported
    assert not {one for one in imported if one.split(".")[0] in ("hmac", "http")} - {"http.client"}


def test_no_private_name_of_typer_or_rich_is_used() -> None:
    cli = [path for name, path in MODULES.items() if name.startswith("cli/")]
    private = [
        (path, name)
        for path in cli
        for name in _imported(path)
        if any(re.match("_[^_]", one) for one in name.split("."))
    ]
    private += [
        (path, node.attr)
        for path in cli
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and re.match("_[^_]|__mro__", node.attr)
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    ]
    assert private == []
