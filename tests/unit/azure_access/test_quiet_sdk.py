"""The Azure ML SDK is imported and used without its warnings, by one thread at a time, which restores the process."""

from __future__ import annotations

import os
import sys
import warnings
from threading import Event, Thread
from types import ModuleType

import pytest

from amlctl.azure_access.azure_ai_ml import CLOUD_VARIABLE, azure_ai_ml


def test_threads_that_overlap_restore_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.ai.ml", ModuleType("azure.ai.ml"))  # the import takes a second
    before = list(warnings.filters)
    inside, leave = Event(), Event()

    def first() -> None:
        with azure_ai_ml():
            os.environ[CLOUD_VARIABLE] = "cloud of the SDK"
            inside.set()
            leave.wait()

    thread = Thread(target=first)
    thread.start()
    inside.wait()
    assert warnings.filters[0][0] == "ignore"
    leave.set()
    with azure_ai_ml():
        assert CLOUD_VARIABLE not in os.environ
        os.environ[CLOUD_VARIABLE] = "cloud of the SDK"
        with azure_ai_ml():
            assert warnings.filters[0][0] == "ignore"
        assert os.environ[CLOUD_VARIABLE] == "cloud of the SDK"
    thread.join()
    assert list(warnings.filters) == before
    assert CLOUD_VARIABLE not in os.environ
