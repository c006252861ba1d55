"""The one list of `AMLCTL_…` variables that amlctl itself reads for its settings."""

from __future__ import annotations

from typing import NamedTuple


class Variable(NamedTuple):
    """`key` is the dotted settings key it stands for; `{workspace}` is the workspace in use."""

    name: str
    key: str
    meaning: str


VARIABLES = (
    Variable("AMLCTL_WORKSPACE", "default_workspace", "the workspace to use"),
    Variable("AMLCTL_EXPERIMENT", "experiment", "the experiment that runs belong to"),
    Variable("AMLCTL_STORE", "workspaces.{workspace}.store", "the store of the workspace in use"),
    Variable("AMLCTL_COMPUTE", "workspaces.{workspace}.default_compute", "the compute target of submit"),
    Variable("AMLCTL_SYNC_LAYOUT", "sync.layout", "auto, pack or mirror"),
    Variable("AMLCTL_SYNC_PACK_BELOW", "sync.pack_below", "files smaller than this are packed"),
    Variable("AMLCTL_SYNC_PACK_SIZE", "sync.pack_size", "size of a full pack"),
    Variable("AMLCTL_SUBMIT_MODE", "submit.mode", "mount or download"),
    Variable("AMLCTL_SUBMIT_FETCH", "submit.fetch", "true or false: bring the outputs back after a run"),
    Variable("AMLCTL_SUBMIT_ON_INTERRUPT", "submit.on_interrupt", "ask, cancel or detach"),
)
"""Further ones, read where they act: AMLCTL_PROJECT (the project's folder), AMLCTL_ENVIRONMENTS_DIR (where the local
workspace keeps environments), and those that the runtime sets for scripts (AMLCTL_RUN_ID, AMLCTL_OUTPUTS_DIR, …)."""
