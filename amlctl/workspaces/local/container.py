"""The working container of a run: a fresh folder with the code snapshot; the runtime adds the rest.

<container>/pipeline/            the user's code, as it was submitted
            .amlctl-runtime/     the runtime that was shipped with it
"""

from __future__ import annotations

from pathlib import Path

from amlctl.core.store_keys import code_index_key, code_prefix
from amlctl.errors import NotFound
from amlctl.localfs.folders import make_private_folder, remove_tree
from amlctl.runs.code import PIPELINE
from amlctl.runs.tree import restore_tree
from amlctl.stores.contract import Store

_RUNTIME = "amlctl/"


def make_container(store: Store, code: str, container: Path) -> None:
    """Raises NotFound (no such code snapshot), IntegrityError, ServiceUnavailable."""
    remove_tree(container, ignore_errors=True)
    make_private_folder(container)
    prefix, index_key = code_prefix(code), code_index_key(code)
    try:
        restore_tree(store, prefix, index_key, container, include=_is_pipeline)
        restore_tree(store, prefix, index_key, runtime_folder(container), include=_is_runtime)
    except NotFound as error:
        raise NotFound(f"the code snapshot {code} is not in the store: {error.message}", hint="submit again") from error
    (container / PIPELINE).mkdir(exist_ok=True)


def runtime_folder(container: Path) -> Path:
    return container / ".amlctl-runtime"


def _is_pipeline(path: str) -> bool:
    return path.startswith(f"{PIPELINE}/")


def _is_runtime(path: str) -> bool:
    return path.startswith(_RUNTIME)
