"""The commands that messages name go where this one has gone: to the workspace and the store that were typed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

from amlctl.cli.invocation import Invocation
from amlctl.core.events import Event, Note, Warned
from amlctl.errors import AmlctlError

_COMMAND = re.compile(r"\bamlctl (sync|store (?:stats|gc|verify))\b")


class SamePlace:
    """What this call was told of the place, for whatever is told to its user."""

    def __init__(self, call: Invocation, store_url: str | None = None) -> None:
        self._call = call
        url = _without_token(store_url)
        self._option = f" --store {shlex.quote(url)}" if url else ""

    def told(self, text: str) -> str:
        return self._call.output.to_type(_COMMAND.sub(lambda found: found[0] + self._option, text))

    def sink(self, event: Event) -> None:
        if isinstance(event, (Note, Warned)):
            event = event._replace(message=self.told(event.message))
        self._call.reporter(event)

    @contextmanager
    def errors(self) -> Iterator[None]:
        try:
            yield
        except AmlctlError as error:
            error.message, error.hint = self.told(error.message), self.told(error.hint)
            raise


def _without_token(url: str | None) -> str | None:
    """A SAS token is not to be told; it comes from its variable, then."""
    return url.partition("?")[0] if url is not None and url.lower().startswith(("http://", "https://")) else url
