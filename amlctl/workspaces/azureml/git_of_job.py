"""What the SDK writes into a job about Git: the state of the project, in whatever folder the command was typed."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amlctl.localfs.git import ask_git

_VARIABLES = {"commit": "AZUREML_GIT_COMMIT", "branch": "AZUREML_GIT_BRANCH", "dirty": "AZUREML_GIT_DIRTY"}
_ADDRESS = "AZUREML_GIT_REPOSITORY_URI"
_LOGIN = re.compile(r"(?<=://)[^/]*@")
"""Up to the last @ before the path: a password may hold others."""


@contextmanager
def git_of_job(root: Path, state: Mapping[str, Any] | None) -> Iterator[None]:
    """Tell the SDK by the variables that it reads before it asks Git itself: in the working folder, with a status that
    goes through all of `data_blobs/`, and with the password that a remote's address may have.
    """
    given = {}
    if state:
        given = {name: str(state[key]) for key, name in _VARIABLES.items() if state.get(key) is not None}
        remote = ask_git(root, "ls-remote", "--get-url")
        if remote is not None and remote.code == 0:
            given[_ADDRESS] = _LOGIN.sub("", remote.output)
    given = {name: value for name, value in given.items() if name not in os.environ}
    os.environ.update(given)
    try:
        yield
    finally:
        for name in given:
            os.environ.pop(name, None)
