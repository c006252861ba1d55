"""Shortens the pauses of the process that imports it: between attempts, and between two looks at a run."""

from __future__ import annotations

from amlctl.azure_access import retry
from amlctl.workspaces.azureml import clients
from amlctl.workspaces.azureml.looks import DEFAULT_TIMING
from tests.support.azureml_bench import QUICK

retry.FIRST_WAIT_S = 0.001
clients._POLL_S = 0.05
for name in ("first_poll_s", "longest_poll_s", "log_poll_s", "fresh_s", "settle_s"):
    object.__setattr__(DEFAULT_TIMING, name, getattr(QUICK, name))
