"""What is known of a workspace from earlier commands: addresses that do not change, assets that exist.

One JSON file a workspace below `.amlctl/cache/`; losing it costs a few requests. It holds no secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from amlctl.errors import AmlctlError
from amlctl.localfs.atomic import read_json, write_json
from amlctl.localfs.project import Project

_KEPT = 500
"""Names of each kind that are remembered."""


class Memory:
    """Not for two threads at a time; of two processes the last writer wins."""

    def __init__(self, project: Project, workspace_id: str) -> None:
        self._project = project
        # Named by what it is about: a settings file that points elsewhere must not find old addresses.
        digest = hashlib.sha256(workspace_id.lower().encode()).hexdigest()[:16]
        self._path: Path = project.state_dir / "cache" / "azureml" / f"{digest}.json"
        self._facts: dict[str, Any] | None = None

    def get(self, name: str) -> Any:
        """A fact, or None."""
        return self._read().get(name)

    def set(self, **facts: Any) -> None:
        self._facts = None  # what another process has learned meanwhile stays
        kept = {**self._read(), **facts}
        self._write({name: value for name, value in kept.items() if value is not None})

    def has(self, kind: str, name: str) -> bool:
        """Whether an asset of that kind was seen in the workspace."""
        return name in (self.get(kind) or {})

    def value(self, kind: str, name: str) -> Any:
        return (self.get(kind) or {}).get(name)

    def add(self, kind: str, name: str, value: Any = True) -> None:
        names = dict(self.get(kind) or {})
        names.pop(name, None)
        names[name] = value
        self.set(**{kind: dict(list(names.items())[-_KEPT:])})

    def forget(self, *kinds: str) -> None:
        self.set(**dict.fromkeys(kinds))

    def clear(self) -> None:
        """Forget everything."""
        self._write({})

    def _read(self) -> dict[str, Any]:
        if self._facts is None:
            self._facts = {}
            with suppress(OSError, AmlctlError):
                found = read_json(self._path)
                # A damaged fact costs a request, as an unknown one does.
                if isinstance(found, Mapping):
                    self._facts = {kind: value for kind, value in found.items() if _is_fact(value)}
        return self._facts

    def _write(self, facts: dict[str, Any]) -> None:
        self._facts = facts
        with suppress(OSError, AmlctlError):  # where nothing can be written, it is asked for again
            self._project.ensure_state_dir()
            write_json(self._path, facts)


def _is_fact(value: Any) -> bool:
    """Texts and flags by name, or a table of them by name: all that is ever kept."""
    return isinstance(value, dict) and all(
        isinstance(one, (str, bool))
        or (isinstance(one, dict) and all(isinstance(x, (str, bool)) for x in one.values()))
        for one in value.values()
    )
