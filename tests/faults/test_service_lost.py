"""A service that has gone: what fails once is not tried again for each of many values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from amlctl.core.events import null_sink
from amlctl.errors import ServiceUnavailable
from amlctl.localfs.ignore import IgnoreRules
from amlctl.operations.store.verify import verify
from amlctl.runs.code import collect_code, send_code
from amlctl.stores.contract import Store
from tests.support.clones import Clones
from tests.support.faulty_store import Call, FaultyStore
from tests.support.trees import write_tree

VALUES = 80


def _lost(store: Store, method: str, prefix: str) -> tuple[FaultyStore, Callable[[], int]]:
    """A store that fails with each such call, and how many there were."""

    def act(call: Call) -> None:
        if call.method == method and call.key.startswith(prefix):
            Event().wait(0.02)  # as little as a service takes to fail
            raise ServiceUnavailable("it does not answer")

    faulty = FaultyStore(store, act)
    return faulty, lambda: sum(call.method == method and call.key.startswith(prefix) for call in faulty.calls)


def test_a_check_ends(tmp_path: Path) -> None:
    clones = Clones(tmp_path)
    clones["one"].make({f"f{number}": b"%d" % number * 3_000 for number in range(VALUES)})
    clones["one"].sync()
    store, tried = _lost(clones.store, "get", "objects/")
    with pytest.raises(ServiceUnavailable):
        verify(store, null_sink)
    assert 0 < tried() < VALUES / 2


def test_sending_code_ends(tmp_path: Path) -> None:
    write_tree(tmp_path / "pipeline", {f"f{number}.py": b"%d" % number for number in range(VALUES)})
    code = collect_code(tmp_path / "pipeline", IgnoreRules(tmp_path, ()))
    store, tried = _lost(Clones(tmp_path).store, "put", "code/")
    with pytest.raises(ServiceUnavailable):
        send_code(store, code)
    assert 0 < tried() < VALUES / 2
