"""What was typed after `amlctl submit`, before anything of it is looked at."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class SubmitRequest:
    """What was typed. None and empty mean: not given.

    `variables` are those of `--env`; None as a value takes it from `caller_variables`. `secrets` names variables,
    options of the script, settings and tags whose values are secrets, whatever they look like. `command_line` is kept
    in the record, with secrets masked. `cwd` is what relative paths are relative to.
    """

    script: str = ""
    config: str | None = None
    datasets: tuple[str, ...] | None = None
    arguments: tuple[str, ...] = ()
    experiment: str | None = None
    compute: str | None = None
    mode: str | None = None
    sync: bool = True
    produces: tuple[str, ...] | None = None
    variables: Mapping[str, str | None] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    from_run: str | None = None
    env_from_current: bool = False
    distribution: str | None = None
    processes: int | None = None
    instances: int | None = None
    timeout_s: float | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    command_line: tuple[str, ...] = ()
    cwd: Path = field(default_factory=Path.cwd)
    caller_variables: Mapping[str, str] = field(default_factory=lambda: os.environ)
