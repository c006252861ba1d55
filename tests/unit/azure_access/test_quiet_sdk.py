"""The Azure ML SDK is imported and used without its warnings, by several threads, and leaves the process as it was."""

from __future__ import annotations

import os
import warnings
from threading import Event, Thread

from amlctl.azure_access.azure_ai_ml import CLOUD_VARIABLE, _Quiet


def test_threads_that_overlap_restore_the_warnings() -> None:
    quiet = _Quiet()
    before = list(warnings.filters)
    inside, leave = Event(), Event()

    def first() -> None:
        with quiet.entered():
            inside.set()
            leave.wait()

    thread = Thread(target=first)
    thread.start()
    inside.wait()
    with quiet.entered():
        os.environ[CLOUD_VARIABLE] = "cloud of the SDK"
        leave.set()
        thread.join()  # entered first and leaves first: the second one is still inside
        assert warnings.filters[0][0] == "ignore"
    assert list(warnings.filters) == before
    assert CLOUD_VARIABLE not in os.environ
